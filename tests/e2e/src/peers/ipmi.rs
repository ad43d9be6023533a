//! OpenIPMI's simulator of a controller, which `ipmitool` finds to be as expected first.
//!
//! The machine behind it is a script that keeps its power in a file and writes down what it was
//! told. The simulator does not hold users to their privilege.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use crate::{
    product::Daemon,
    sh, tools,
    wait::{self, Look},
};

/// Whose password it is.
pub const USER: &str = "admin";
/// Of that user.
pub const PASSWORD: &str = "a-password";

const MACHINE: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
shift
verb=$1
shift
[ "$verb" = get ] || echo "$verb $*" >> told
case $verb in
get)
    for what in "$@"; do
        case $what in
        power) echo "power:$(cat power)" ;;
        boot) echo "boot:$(cat boot)" ;;
        esac
    done
    ;;
set)
    while [ $# -gt 1 ]; do
        case $1 in power | boot) echo "$2" > "$1" ;; esac
        shift 2
    done
    ;;
esac
"#;

const EMULATED: &str = "mc_setbmc 0x20\n\
     mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
     mc_enable 0x20\n";

/// A controller, with its machine off.
#[derive(Debug)]
pub struct Ipmi {
    /// On this UDP port of the loopback interface.
    pub port: u16,
    folder: PathBuf,
    simulator: Daemon,
}

impl Ipmi {
    /// With its files in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        tools::ensure(&[
            tools::tool("ipmi_sim", "openipmi"),
            tools::tool("ipmitool", "ipmitool"),
        ])?;
        let folder = folder.join("ipmi");
        fs::create_dir_all(&folder)?;
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = free.local_addr()?.port();
        drop(free);
        let machine = super::written(&folder, "machine", MACHINE)?;
        fs::set_permissions(&machine, fs::Permissions::from_mode(0o755))?;
        super::written(&folder, "power", "0\n")?;
        super::written(&folder, "boot", "none\n")?;
        super::written(&folder, "told", "")?;
        let settings = super::written(&folder, "lan.conf", &settings(&machine, port))?;
        let emulated = super::written(&folder, "sim.emu", EMULATED)?;
        let mut command = Command::new("ipmi_sim");
        command.arg("-n").arg("-c").arg(settings);
        command.arg("-f").arg(emulated);
        command.arg("-s").arg(folder.join("state"));
        let simulator = Daemon::start("ipmi_sim", command, &folder.join("log"))?;
        let controller = Self {
            port,
            folder,
            simulator,
        };
        wait::until("the simulator", Duration::from_secs(20), || {
            let said = controller.ipmitool(&["chassis", "power", "status"])?;
            let ready = said.contains("Chassis Power is off");
            Ok(Look::when(ready, || said + &controller.simulator.tail(5)))
        })?;
        Ok(controller)
    }

    /// What the client that everybody uses sees.
    pub fn ipmitool(&self, words: &[&str]) -> Result<String> {
        let port = self.port.to_string();
        let mut command = Command::new("ipmitool");
        command.args(["-I", "lanplus", "-C", "3", "-N", "1", "-R", "1"]);
        command.args(["-H", "127.0.0.1", "-p", &port]);
        command.args(["-U", USER, "-P", PASSWORD, "-L", "OPERATOR"]);
        command.args(words);
        let output = sh::run(&mut command, Duration::from_secs(20))?;
        Ok(output.stdout + &output.stderr)
    }

    /// What the machine was told, a line each.
    pub fn told(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("told"))?)
    }
}

fn settings(machine: &Path, port: u16) -> String {
    format!(
        r#"name "bmc"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{machine} 0x20"
  user 2 true "{USER}" "{PASSWORD}" admin 10 none md2 md5 straight
"#,
        machine = machine.display()
    )
}
