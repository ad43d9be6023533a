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

use anyhow::{Context, Result};
use serde_json::Value;

use super::{PORT, system};
use crate::{
    lab::{GATEWAY, Host},
    peers::redfish::{Redfish, Setup},
    product::{Daemon, World},
    tools,
};

const NOTICES: u16 = 18444;
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
    folder: PathBuf,
    controller: Redfish,
    cut: AtomicBool,
    /// Resets that the board itself told the controller of.
    own: Mutex<usize>,
    _listener: Daemon,
}

impl<'w> Board<'w> {
    pub(super) fn start(world: &'w World) -> Result<Self> {
        let folder = world.folder().join("board");
        fs::create_dir_all(&folder)?;
        let place = world.gateway().place().clone();
        fs::write(folder.join("listener.py"), LISTENER)?;
        fs::write(folder.join("notices"), "")?;
        let at = |name: &str| folder.join(name).display().to_string();
        // The listener comes first: the controller tells of its first change at once.
        let python = tools::find("python3").context("python3 is not installed")?;
        let mut listener = place.command(&python);
        listener.args([&at("listener.py"), &NOTICES.to_string(), &at("notices")]);
        let log = folder.join("listener.log");
        let listener = Daemon::start("the board's listener", listener, &log)?;
        let controller = Redfish::start(Setup {
            folder: &folder,
            place: &place,
            address: (GATEWAY, Some(PORT)),
            systems: &[system("On")],
            notices: Some(format!("http://127.0.0.1:{NOTICES}/")),
        })?;
        Ok(Self {
            machine: &world.hosts()[0],
            folder,
            controller,
            cut: AtomicBool::new(false),
            own: Mutex::new(0),
            _listener: listener,
        })
    }

    pub(super) fn controller(&self) -> &Redfish {
        &self.controller
    }

    /// How often the controller was told to do something, by others than the board.
    pub(super) fn resets(&self) -> Result<usize> {
        let told = self.controller.resets()?;
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(told.saturating_sub(*own))
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
        self.controller.tell_off(system("On").uuid)?;
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
