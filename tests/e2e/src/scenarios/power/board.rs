//! A mainboard: the wire between a host of the lab and an emulated management controller.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    lab::{GATEWAY, Host, Place},
    product::{Daemon, World},
    sh, tools,
};

const SUSHY_TOOLS: &str = "2.2.0";
pub(super) const SYSTEM: &str = "5d1f8f1e-0000-4000-8000-000000000001";
pub(super) const PASSWORD: &str = "correct-horse-7";
/// Of that password: four rounds, since every request is checked.
const HTPASSWD: &str = "admin:$2b$04$VpEUZ9FnqtDm636WQl.SquN5NhGEzxyFyRTdhoBfFKmjq/WW.NxiG\n";
const PORT: u16 = 18443;
const NOTICES: u16 = 18444;
const START: Duration = Duration::from_secs(60);
/// How often the board looks at its machine.
const LOOK: Duration = Duration::from_millis(200);
/// A machine that is off for so many looks has turned itself off, and is not just restarting.
const GONE: u32 = 15;

/// Told by the controller, line by line; the controller waits for the answer.
const LISTENER: &str = r#"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        body = self.rfile.read(int(self.headers['content-length']))
        with open(sys.argv[2], 'ab') as file:
            file.write(body.replace(b'\n', b' ') + b'\n')
        self.send_response(204)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"#;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Board<'w> {
    machine: &'w Host,
    place: Place,
    folder: PathBuf,
    pin: String,
    cut: AtomicBool,
    /// Resets that the board itself told the controller of.
    own: Mutex<usize>,
    _daemons: [Daemon; 2],
}

impl<'w> Board<'w> {
    pub(super) fn start(world: &'w World) -> Result<Self> {
        let folder = world.folder().join("board");
        fs::create_dir_all(folder.join("state"))?;
        let home = std::env::current_exe()?;
        let home = home.parent().context("this program lies in a folder")?;
        let program = tools::packaged(
            "sushy-emulator",
            "sushy-tools",
            SUSHY_TOOLS,
            &home.join("peers"),
        )?;
        let at = |name: &str| folder.join(name).display().to_string();
        let make = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=bmc \
             -keyout {} -out {} 2>/dev/null && openssl x509 -in {} -pubkey -noout \
             | openssl pkey -pubin -outform der | sha256sum",
            at("key.pem"),
            at("cert.pem"),
            at("cert.pem")
        );
        let pin = sh::ok(&["sh", "-c", &make], START)?;
        let pin = pin
            .split_whitespace()
            .next()
            .context("a digest")?
            .to_owned();
        fs::write(folder.join("htpasswd"), HTPASSWD)?;
        fs::write(folder.join("listener.py"), LISTENER)?;
        fs::write(folder.join("notices"), "")?;
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '{GATEWAY}'\n\
             SUSHY_EMULATOR_LISTEN_PORT = {PORT}\n\
             SUSHY_EMULATOR_FAKE_DRIVER = True\n\
             SUSHY_EMULATOR_AUTH_FILE = '{}'\n\
             SUSHY_EMULATOR_STATE_DIR = '{}'\n\
             SUSHY_EMULATOR_SSL_CERT = '{}'\n\
             SUSHY_EMULATOR_SSL_KEY = '{}'\n\
             EXTERNAL_NOTIFICATION_URL = 'http://127.0.0.1:{NOTICES}/'\n\
             SUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '{SYSTEM}', 'name': 'h1', 'power_state': 'On', \
             'external_notifier': True, 'nics': [{{'mac': '52:54:00:AB:00:01', 'ip': '192.0.2.7'}}]}}]\n",
            at("htpasswd"),
            at("state"),
            at("cert.pem"),
            at("key.pem"),
        );
        fs::write(folder.join("config.py"), config)?;
        let place = world.gateway().place().clone();
        // The listener comes first: the controller tells of its first change at once.
        let python = tools::find("python3").context("python3 is not installed")?;
        let mut listener = place.command(&python);
        listener.args([&at("listener.py"), &NOTICES.to_string(), &at("notices")]);
        let listener = Daemon::start(
            "the board's listener",
            listener,
            &folder.join("listener.log"),
        )?;
        let mut command = place.command(&program);
        command.args(["--config", &at("config.py")]);
        let mut emulator = Daemon::start("sushy-emulator", command, &folder.join("log"))?;
        emulator.wait_line(|line| line.contains("Running on"), START)?;
        Ok(Self {
            machine: &world.hosts()[0],
            place,
            folder,
            pin,
            cut: AtomicBool::new(false),
            own: Mutex::new(0),
            _daemons: [emulator, listener],
        })
    }

    pub(super) fn host(&self) -> String {
        GATEWAY.to_string()
    }

    pub(super) fn port(&self) -> u16 {
        PORT
    }

    pub(super) fn url(&self) -> String {
        format!("https://{GATEWAY}:{PORT}")
    }

    /// SHA-256 of the controller's public key.
    pub(super) fn pin(&self) -> &str {
        &self.pin
    }

    /// How often the controller was told to do something, by others than the board.
    pub(super) fn resets(&self) -> Result<usize> {
        let log = fs::read_to_string(self.folder.join("log"))?;
        let told = log
            .lines()
            .filter(|line| line.contains("POST") && line.contains("ComputerSystem.Reset"));
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(told.count().saturating_sub(*own))
    }

    /// Ends [`Self::wire`].
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Has machine and controller follow each other until it is cut.
    pub(super) fn wire(&self) -> Result<()> {
        let (mut read, mut says_on, mut gone) = (0, true, 0);
        while !self.cut.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
            let notices = fs::read_to_string(self.folder.join("notices"))?;
            for notice in notices.lines().skip(read) {
                read += 1;
                let notice: Value = serde_json::from_str(notice).context("read a notice")?;
                follow(self.machine, &notice)?;
                says_on = notice["power_state"] == "On";
            }
            let off = !self.machine.is_running();
            gone = if off && says_on { gone + 1 } else { 0 };
            if gone == GONE {
                self.tell_off()?;
            }
        }
        Ok(())
    }

    /// The machine turned itself off, which a controller sees.
    fn tell_off(&self) -> Result<()> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let curl = tools::find("curl").context("curl is not installed")?;
        let mut command = self.place.command(&curl);
        command.args([
            "--silent",
            "--fail",
            "--insecure",
            "--user",
            &format!("admin:{PASSWORD}"),
            "--json",
            "{\"ResetType\":\"ForceOff\"}",
            &format!(
                "{}/redfish/v1/Systems/{SYSTEM}/Actions/ComputerSystem.Reset",
                self.url()
            ),
        ]);
        let told = sh::run(&mut command, START)?;
        ensure!(
            told.status.success(),
            "the controller does not listen: {told}"
        );
        *own += 1;
        Ok(())
    }
}

/// Has a machine do what its controller decided.
fn follow(machine: &Host, notice: &Value) -> Result<()> {
    match notice["power_state"].as_str() {
        // Also at the beginning of a restart, which ends with `On`.
        Some("Off") if machine.is_running() => machine.power_loss(),
        Some("On") if notice["pending_power"].is_null() && !machine.is_running() => {
            machine.power_on()
        }
        _ => Ok(()),
    }
}
