//! A name server that answers as it is told, each time anew.

use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// Answers for a name and the how-manieth question (from 0) about it, of one kind.
pub(crate) type Zone = dyn Fn(&str, usize) -> Vec<IpAddr> + Send;

const A: u16 = 1;
const AAAA: u16 = 28;

/// Serves on 127.0.0.1:53; tells the names that were asked for, A questions only.
pub(crate) fn serve(
    zone: impl Fn(&str, usize) -> Vec<IpAddr> + Send + 'static,
) -> Arc<Mutex<Vec<String>>> {
    let socket = UdpSocket::bind("127.0.0.1:53").expect("port 53 of a namespace");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    thread::spawn(move || {
        let mut questions: Vec<(String, u16)> = Vec::new();
        let mut space = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut space) {
            let (name, kind, end) = question(&space[..length]);
            let times = questions
                .iter()
                .filter(|before| **before == (name.clone(), kind))
                .count();
            questions.push((name.clone(), kind));
            if kind == A {
                noted.lock().expect("names").push(name.clone());
            }
            let answers: Vec<Vec<u8>> = zone(&name, times)
                .into_iter()
                .filter_map(|address| match (kind, address) {
                    (A, IpAddr::V4(address)) => Some(address.octets().to_vec()),
                    (AAAA, IpAddr::V6(address)) => Some(address.octets().to_vec()),
                    _ => None,
                })
                .collect();
            let mut reply = space[..2].to_vec();
            // An authoritative answer without fault.
            reply.extend_from_slice(&[0x85, 0x80, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0]);
            reply.extend_from_slice(&space[12..end]);
            for data in answers {
                // The name of the question, class IN, not to be kept.
                reply.extend_from_slice(&[0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 0, 0]);
                reply.extend_from_slice(&[0, data.len() as u8]);
                reply.extend_from_slice(&data);
            }
            let _ = socket.send_to(&reply, from);
        }
    });
    asked
}

/// The name, the kind, and where the question ends.
fn question(packet: &[u8]) -> (String, u16, usize) {
    let mut labels = Vec::new();
    let mut at = 12;
    while packet[at] != 0 {
        let length = usize::from(packet[at]);
        labels.push(String::from_utf8_lossy(&packet[at + 1..=at + length]).to_lowercase());
        at += 1 + length;
    }
    let kind = u16::from_be_bytes([packet[at + 1], packet[at + 2]]);
    (labels.join("."), kind, at + 5)
}
