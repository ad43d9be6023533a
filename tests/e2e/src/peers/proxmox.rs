//! A server that plays Proxmox VE by its published API. There is no real one here: it is a
//! hypervisor's operating system. That the API is so is taken from its documentation.
//!
//! It has twenty virtual machines and twenty containers on one node, and tasks that end when they
//! were asked after three times.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// How often a task is asked after until it has ended.
const TASK_STEPS: u32 = 3;

/// Who may ask; its secret is given when the server is started.
pub const TOKEN_ID: &str = "loopback@pve!power";

/// A server that is played.
#[derive(Debug)]
pub struct Proxmox {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    token: String,
    machines: BTreeMap<(String, u32), Machine>,
    tasks: BTreeMap<String, (u32, String)>,
    submitted: Vec<String>,
    next_exit: Option<String>,
    hang_up: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Machine {
    running: bool,
    paused: bool,
    lock: Option<&'static str>,
}

type Answer = (u16, Value);

impl Proxmox {
    /// How many it has.
    pub const MACHINES: usize = 40;

    /// Serves until this process ends.
    pub fn start(token: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port")?;
        let address = listener.local_addr()?;
        // Numbers are those of a whole cluster, whatever runs a machine.
        let machines = [("qemu", 100), ("lxc", 200)]
            .into_iter()
            .flat_map(|(kind, first)| {
                (first..first + 20).map(move |id| ((kind.to_owned(), id), Machine::default()))
            });
        let state = Arc::new(Mutex::new(State {
            token: token.to_owned(),
            machines: machines.collect(),
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(&stream, &shared);
            }
        });
        Ok(Self { address, state })
    }

    /// On this port of the loopback interface.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was submitted since the last time.
    pub fn submitted(&self) -> Vec<String> {
        std::mem::take(&mut self.lock_state().submitted)
    }

    /// Has a virtual machine be paused.
    pub fn pause(&self, id: u32) {
        self.change(id, |machine| machine.paused = true);
    }

    /// Locks a virtual machine, or unlocks it.
    pub fn lock(&self, id: u32, lock: Option<&'static str>) {
        self.change(id, |machine| machine.lock = lock);
    }

    /// Whether a virtual machine runs.
    pub fn is_running(&self, id: u32) -> bool {
        let key = ("qemu".to_owned(), id);
        let state = self.lock_state();
        state.machines.get(&key).is_some_and(|it| it.running)
    }

    /// The next task ends with this.
    pub fn fail_next(&self, exit: &str) {
        self.lock_state().next_exit = Some(exit.to_owned());
    }

    /// The next request that submits something is carried out, and not answered.
    pub fn hang_up_after_next(&self) {
        self.lock_state().hang_up = true;
    }

    fn change(&self, id: u32, change: impl FnOnce(&mut Machine)) {
        let key = ("qemu".to_owned(), id);
        if let Some(machine) = self.lock_state().machines.get_mut(&key) {
            change(machine);
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(mut stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let (mut authorization, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = value.trim().to_owned(),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let known = format!("PVEAPIToken={TOKEN_ID}={}", state.token);
    let (status, answer) = if authorization == known {
        state.answer(&method, &path, &body)
    } else {
        (401, json!({ "data": null }))
    };
    if method == "POST" && std::mem::take(&mut state.hang_up) {
        return Ok(());
    }
    let text = answer.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} played\r\ncontent-type: application/json;charset=UTF-8\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    )
}

fn failed(message: &str) -> Answer {
    (
        500,
        json!({ "data": null, "message": format!("{message}\n") }),
    )
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let Some(path) = path.strip_prefix("/api2/json/") else {
            return (404, json!({}));
        };
        let parts: Vec<&str> = path.split('/').collect();
        match (method, &parts[..]) {
            ("GET", ["cluster", "resources?type=vm"]) => (200, self.list()),
            ("GET", ["access", rest, "vms", _]) if rest.starts_with("permissions?path=") => {
                let path = path.split_once('=').map_or("", |(_, path)| path);
                let may = json!({ "VM.Audit": 1, "VM.PowerMgmt": 1 });
                (200, json!({ "data": { path: may } }))
            }
            ("GET", ["nodes", "pve-1", "tasks", task, "status"]) => self.task(task),
            (_, ["nodes", "pve-1", kind, id, rest @ ..]) => {
                let key = ((*kind).to_owned(), id.parse().unwrap_or(0));
                let Some(machine) = self.machines.get(&key).copied() else {
                    let file = format!("nodes/pve-1/{kind}/{id}.conf");
                    return failed(&format!("Configuration file '{file}' does not exist"));
                };
                match (method, rest) {
                    ("GET", ["status", "current"]) => {
                        (200, json!({ "data": machine.current(kind) }))
                    }
                    ("GET", ["config"]) => (200, json!({ "data": config(kind, key.1) })),
                    ("POST", ["status", verb]) => self.submit(&key, verb, body),
                    _ => (501, json!({})),
                }
            }
            _ => (501, json!({})),
        }
    }

    fn list(&self) -> Value {
        let machines = self.machines.iter().map(|((kind, id), machine)| {
            json!({
                "id": format!("{kind}/{id}"), "type": kind, "vmid": id, "node": "pve-1",
                "name": format!("{kind}-{id}"), "template": 0,
                "status": if machine.running { "running" } else { "stopped" },
            })
        });
        json!({ "data": machines.collect::<Vec<_>>() })
    }

    fn submit(&mut self, key: &(String, u32), verb: &str, body: &str) -> Answer {
        let Some(machine) = self.machines.get_mut(key) else {
            return (404, json!({}));
        };
        if let Some(lock) = machine.lock {
            return failed(&format!("VM is locked ({lock})"));
        }
        let task = match (verb, machine.running) {
            ("start", false) | ("resume", true) => "start",
            ("shutdown" | "reboot", true) if body.starts_with("timeout=") => verb,
            ("stop", true) => verb,
            ("reset", true) if key.0 == "qemu" => verb,
            ("start", true) => return failed(&format!("VM {} already running", key.1)),
            ("shutdown" | "reboot" | "stop" | "reset", false) => {
                return failed(&format!("VM {} not running", key.1));
            }
            _ => return (400, json!({ "data": null })),
        };
        let exit = self.next_exit.take();
        if exit.is_none() {
            machine.paused = false;
            machine.running = !matches!(verb, "shutdown" | "stop");
        }
        self.submitted.push(verb.to_owned());
        let (number, id) = (self.submitted.len() + self.tasks.len(), key.1);
        let task =
            format!("UPID:pve-1:{number:08X}:0A1B2C3D:65A0B1C2:qm{task}:{id}:loopback@pve!power:");
        let exit = exit.unwrap_or_else(|| "OK".to_owned());
        self.tasks.insert(task.clone(), (0, exit));
        (200, json!({ "data": task }))
    }

    fn task(&mut self, task: &str) -> Answer {
        let Some((asked, exit)) = self.tasks.get_mut(task) else {
            return failed("no such task");
        };
        *asked += 1;
        let data = if *asked < TASK_STEPS {
            json!({ "status": "running", "upid": task })
        } else {
            json!({ "status": "stopped", "exitstatus": exit, "upid": task })
        };
        (200, json!({ "data": data }))
    }
}

impl Machine {
    fn current(self, kind: &str) -> Value {
        let status = if self.running { "running" } else { "stopped" };
        let mut current = json!({ "status": status, "name": "played", "ha": { "managed": 0 } });
        if kind == "qemu" {
            current["qmpstatus"] = if self.paused { "paused" } else { status }.into();
        }
        if let Some(lock) = self.lock {
            current["lock"] = lock.into();
        }
        current
    }
}

fn config(kind: &str, id: u32) -> Value {
    let mac = format!("BC:24:11:00:00:{id:02X}");
    if kind == "qemu" {
        let net0 = format!("virtio={mac},bridge=vmbr0,firewall=1");
        json!({ "net0": net0, "smbios1": "uuid=6a0f2c1e-0000-4000-8000-000000000001" })
    } else {
        json!({ "net0": format!("name=eth0,bridge=vmbr0,hwaddr={mac},ip=dhcp,type=veth") })
    }
}
