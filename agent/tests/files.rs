//! Files as the gateway asks for them, over a pair of streams that a test cuts where it
//! likes, on a real file system with everything hostile in it that a user can put there.

#![allow(clippy::unwrap_used, reason = "a panic here is the report")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use agent::files::{Resolver, Settings, serve, sweep};
use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use protocol::v1::{
    FileData, FileHeldQuestion, FileMeta, FileOrder, FileRead, FileRefusal, FileReply, FileRequest,
    FileStat, FileWrite, file_order, file_reply, file_request,
};
use ring::digest;
use tempfile::TempDir;

use file_request::Action;

const LIMIT: Duration = Duration::from_secs(60);

/// A folder that is given out, and one beside it that is not.
struct Host {
    dir: TempDir,
    settings: Arc<Settings>,
}

/// What came of a question.
#[derive(Debug, Default)]
struct Said {
    meta: Option<FileMeta>,
    data: Vec<u8>,
    held: Option<u64>,
    sha256: Option<Vec<u8>>,
    refused: Option<FileRefusal>,
}

impl Host {
    fn new() -> Self {
        Self::with(Resolver::Best)
    }

    fn with(resolver: Resolver) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["root", "outside", "state"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("outside/secret"), "canary").unwrap();
        let settings = Settings {
            host: "hst_x".to_owned(),
            generation: 3,
            roots: vec![dir.path().join("root")],
            state_dir: dir.path().join("state"),
            paused: false,
            resolver,
        };
        Self {
            dir,
            settings: Arc::new(settings),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    fn parts(&self) -> Vec<String> {
        names(&self.dir.path().join("root"))
            .into_iter()
            .filter(|it| it.starts_with(".loopback-"))
            .collect()
    }

    fn notes(&self) -> Vec<String> {
        names(&self.dir.path().join("state/uploads"))
    }

    async fn stat(&self, path: &str, digest: bool) -> Said {
        ask(&self.settings, path, Action::Stat(FileStat { digest })).await
    }

    async fn read(&self, path: &str) -> Said {
        ask(&self.settings, path, Action::Read(FileRead::default())).await
    }

    async fn held(&self, path: &str, write: &FileWrite) -> Said {
        let transfer = write.transfer.clone();
        ask(
            &self.settings,
            path,
            Action::Held(FileHeldQuestion { transfer }),
        )
        .await
    }

    async fn write(&self, path: &str, write: &FileWrite, content: &[u8]) -> Said {
        let from = usize::try_from(write.offset).unwrap();
        bring(
            &self.settings,
            path,
            write,
            &content[from.min(content.len())..],
        )
        .await
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

/// A new upload of `content`.
fn upload(number: u8, content: &[u8]) -> FileWrite {
    FileWrite {
        transfer: vec![number; 16],
        size: content.len() as u64,
        sha256: sha256(content),
        ..FileWrite::default()
    }
}

async fn ask(settings: &Arc<Settings>, path: &str, action: Action) -> Said {
    talk(settings, path, action, None).await
}

async fn bring(settings: &Arc<Settings>, path: &str, write: &FileWrite, bytes: &[u8]) -> Said {
    talk(settings, path, Action::Write(write.clone()), Some(bytes)).await
}

async fn talk(settings: &Arc<Settings>, path: &str, action: Action, bytes: Option<&[u8]>) -> Said {
    let request = FileRequest {
        host: "hst_x".to_owned(),
        generation: 3,
        path: path.to_owned(),
        max_bytes: 1 << 30,
        action: Some(action),
    };
    converse(settings, request, bytes).await
}

/// One stream, on which `bytes` are sent when they are wanted and which then ends.
async fn converse(settings: &Arc<Settings>, request: FileRequest, bytes: Option<&[u8]>) -> Said {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (read, write) = tokio::io::split(theirs);
    let served = serve(request, read, write, Arc::clone(settings));
    let asked = async {
        let (read, mut write) = tokio::io::split(ours);
        let deadlines = Deadlines {
            idle: LIMIT,
            frame: LIMIT,
        };
        let mut reader = FrameReader::new(read, MAX_FRAME, deadlines);
        let mut said = Said::default();
        let mut hear = |reply: FileReply| match reply.body.unwrap() {
            file_reply::Body::Meta(meta) => said.meta = Some(meta),
            file_reply::Body::Data(data) => said.data.extend(data.bytes),
            file_reply::Body::End(end) => said.sha256 = Some(end.sha256),
            file_reply::Body::Refused(refused) => said.refused = Some(refused.code()),
            file_reply::Body::Held(held) => said.held = Some(held.bytes),
            file_reply::Body::Working(_) => {}
        };
        while let Some(reply) = reader.next::<FileReply>().await.unwrap() {
            let wanted = matches!(reply.body, Some(file_reply::Body::Held(_)));
            hear(reply);
            if wanted && let Some(bytes) = bytes {
                for piece in bytes.chunks(40_000) {
                    let data = FileData {
                        bytes: piece.to_vec(),
                    };
                    let order = FileOrder {
                        body: Some(file_order::Body::Data(data)),
                    };
                    // A host that has refused listens no more.
                    if write_message(&mut write, &order, MAX_FRAME, LIMIT)
                        .await
                        .is_err()
                    {
                        break;
                    }
                }
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
            }
        }
        said
    };
    let (served, said) = tokio::join!(served, asked);
    served.unwrap();
    said
}

/// The same bytes for the same number.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test]
async fn a_file_goes_in_and_comes_out_as_it_was() {
    let host = Host::new();
    let content = bytes(1, 1_000_003);
    let mut write = upload(1, &content);
    write.mode = Some(0o640);
    write.make_parents = true;
    let path = host.text("new/folder/file");
    let said = host.write(&path, &write, &content).await;
    assert_eq!(said.refused, None);
    assert_eq!(said.sha256.unwrap(), sha256(&content));
    assert_eq!(fs::read(host.at("new/folder/file")).unwrap(), content);
    let mode = fs::metadata(host.at("new/folder/file")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert_eq!(names(&host.at("new/folder")), ["file"]);
    assert!(host.notes().is_empty());

    let said = host.read(&path).await;
    assert_eq!(said.data, content);
    assert_eq!(said.sha256.unwrap(), sha256(&content));
    let meta = said.meta.unwrap();
    assert_eq!(
        (meta.size, meta.mode, meta.length),
        (1_000_003, 0o640, 1_000_003)
    );
    let said = host.stat(&path, true).await;
    assert_eq!(said.sha256.unwrap(), sha256(&content));
    assert_eq!(said.meta.unwrap().version, meta.version);
    assert!(
        host.stat(&host.text("new"), true)
            .await
            .meta
            .unwrap()
            .is_directory
    );
}

#[tokio::test]
async fn what_is_there_stays_unless_it_is_to_be_replaced() {
    let host = Host::new();
    fs::write(host.at("f"), "old").unwrap();
    fs::set_permissions(host.at("f"), fs::Permissions::from_mode(0o4751)).unwrap();
    let mut write = upload(1, b"new");
    let said = host.write(&host.text("f"), &write, b"new").await;
    assert_eq!(said.refused, Some(FileRefusal::Exists));
    assert_eq!(fs::read(host.at("f")).unwrap(), b"old");
    write.overwrite = true;
    let said = host.write(&host.text("f"), &write, b"new").await;
    assert_eq!(said.refused, None);
    assert_eq!(fs::read(host.at("f")).unwrap(), b"new");
    // The permissions of what was there, without the bit that made it somebody's.
    assert_eq!(fs::metadata(host.at("f")).unwrap().mode() & 0o7777, 0o751);
    let empty = upload(2, b"");
    assert_eq!(
        host.write(&host.text("empty"), &empty, b"").await.refused,
        None
    );
    assert_eq!(fs::metadata(host.at("empty")).unwrap().len(), 0);
}

#[tokio::test]
async fn abuse_23_what_is_no_plain_path_below_a_root_is_refused() {
    let host = Host::new();
    let root = host.dir.path().join("root").to_str().unwrap().to_owned();
    for (path, expected) in [
        (format!("{root}/../outside/secret"), FileRefusal::Invalid),
        (format!("{root}/./x"), FileRefusal::Invalid),
        (format!("{root}//x"), FileRefusal::Invalid),
        (format!("{root}/x\0y"), FileRefusal::Invalid),
        ("../outside/secret".to_owned(), FileRefusal::Invalid),
        ("outside/secret".to_owned(), FileRefusal::Invalid),
        (String::new(), FileRefusal::Invalid),
        ("C:\\Windows\\win.ini".to_owned(), FileRefusal::Invalid),
        ("\\\\server\\share".to_owned(), FileRefusal::Invalid),
        (format!("/{}", "a/".repeat(3000)), FileRefusal::Invalid),
        (
            format!("{root}/%2e%2e/outside/secret"),
            FileRefusal::NotFound,
        ),
        (
            format!("{root}/..%2foutside%2fsecret"),
            FileRefusal::NotFound,
        ),
        (format!("{root}/..\\outside\\secret"), FileRefusal::NotFound),
        (format!("{root}x/secret"), FileRefusal::Outside),
        (
            host.dir
                .path()
                .join("outside/secret")
                .to_str()
                .unwrap()
                .to_owned(),
            FileRefusal::Outside,
        ),
        ("/".to_owned(), FileRefusal::Outside),
        ("/etc/passwd".to_owned(), FileRefusal::Outside),
        ("/proc/self/environ".to_owned(), FileRefusal::NotAFile),
        ("/sys/power/state".to_owned(), FileRefusal::NotAFile),
        ("/dev/null".to_owned(), FileRefusal::NotAFile),
    ] {
        let read = host.read(&path).await;
        assert_eq!(read.refused, Some(expected), "read {path:?}");
        assert!(read.data.is_empty(), "{path:?}");
        let mut write = upload(1, b"x");
        write.overwrite = true;
        let said = host.write(&path, &write, b"x").await;
        // A new file of a strange name may be made where it belongs.
        if expected != FileRefusal::NotFound {
            assert_eq!(said.refused, Some(expected), "write {path:?}");
        }
    }
    assert_eq!(names(&host.dir.path().join("outside")), ["secret"]);
    assert_eq!(
        fs::read(host.dir.path().join("outside/secret")).unwrap(),
        b"canary"
    );
}

#[tokio::test]
async fn abuse_22_23_no_link_leads_out_of_a_root() {
    for resolver in [Resolver::Best, Resolver::Walk] {
        let host = Host::with(resolver);
        let outside = host.dir.path().join("outside");
        symlink(&outside, host.at("absolute")).unwrap();
        symlink("../outside", host.at("relative")).unwrap();
        symlink(outside.join("secret"), host.at("file")).unwrap();
        symlink("/proc/self/root", host.at("magic")).unwrap();
        symlink("/proc/self/environ", host.at("environ")).unwrap();
        symlink("loop", host.at("loop")).unwrap();
        for path in [
            "absolute/secret",
            "relative/secret",
            "file",
            "magic/etc/passwd",
            "environ",
            "loop",
        ] {
            let read = host.read(&host.text(path)).await;
            let expected = [FileRefusal::Outside, FileRefusal::NotFound];
            assert!(
                read.refused.is_some_and(|it| expected.contains(&it)),
                "{path}: {read:?}"
            );
            assert!(read.data.is_empty(), "{path}");
            let mut write = upload(1, b"x");
            (write.overwrite, write.make_parents) = (true, true);
            let said = host.write(&host.text(path), &write, b"x").await;
            assert!(said.refused.is_some(), "write {path}");
        }
        assert_eq!(names(&outside), ["secret"]);
        assert_eq!(fs::read(outside.join("secret")).unwrap(), b"canary");
    }
}

/// Links that stay inside are followed on the way, and never written through at its end.
#[tokio::test]
async fn a_link_inside_a_root_is_followed_and_never_written_through() {
    let host = Host::new();
    fs::create_dir(host.at("real")).unwrap();
    fs::write(host.at("real/f"), "x").unwrap();
    symlink("real", host.at("way")).unwrap();
    symlink("real/f", host.at("end")).unwrap();
    assert_eq!(host.read(&host.text("way/f")).await.data, b"x");
    assert_eq!(host.read(&host.text("end")).await.data, b"x");
    let mut write = upload(1, b"y");
    write.overwrite = true;
    let said = host.write(&host.text("end"), &write, b"y").await;
    assert_eq!(said.refused, Some(FileRefusal::NotAFile));
    assert_eq!(fs::read(host.at("real/f")).unwrap(), b"x");
    // Beneath `/` there is no outside: links with absolute targets are followed.
    symlink(host.at("real"), host.at("absolute")).unwrap();
    let mut whole = Settings::clone(&host.settings);
    whole.roots = vec!["/".into(), "/nowhere".into()];
    let read = Action::Read(FileRead::default());
    let said = ask(&Arc::new(whole), &host.text("absolute/f"), read).await;
    assert_eq!(said.data, b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_23_a_link_swapped_ten_thousand_times_never_leads_out() {
    let host = Host::new();
    fs::create_dir(host.at("inside")).unwrap();
    fs::write(host.at("inside/secret"), "harmless").unwrap();
    let (way, spare) = (host.at("way"), host.at("spare"));
    symlink("inside", &way).unwrap();
    let outside = host.dir.path().join("outside");
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (stop, inside, outside) = (Arc::clone(&stop), host.at("inside"), outside.clone());
        std::thread::spawn(move || {
            let targets = [
                Path::new("inside"),
                Path::new("../outside"),
                &outside,
                &inside,
            ];
            for target in targets.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let _ = fs::remove_file(&spare);
                symlink(target, &spare).unwrap();
                fs::rename(&spare, &way).unwrap();
            }
        })
    };
    let path = host.text("way/secret");
    let mut opened = 0;
    for number in 0..10_000_u32 {
        if number % 50 == 0 {
            let mut write = upload(7, b"harmless");
            write.overwrite = true;
            host.write(&path, &write, b"harmless").await;
        }
        let said = host.read(&path).await;
        if said.refused.is_none() {
            assert_eq!(said.data, b"harmless");
            opened += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapping.join().unwrap();
    assert!(opened > 0, "the link was never met in its harmless state");
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"canary");
    assert_eq!(names(&outside), ["secret"]);
}

#[tokio::test]
async fn abuse_22_devices_pipes_and_sockets_are_neither_opened_nor_replaced() {
    let host = Host::new();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        host.at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(host.at("socket")).unwrap();
    let mut things = vec!["pipe", "socket"];
    let device = rustix::fs::mknodat(
        rustix::fs::CWD,
        host.at("device"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::makedev(1, 5),
    );
    match device {
        Ok(()) => things.push("device"),
        Err(error) => eprintln!("SKIPPED: a device cannot be made here ({error}); it needs root"),
    }
    for thing in things {
        let path = host.text(thing);
        for said in [host.read(&path).await, host.stat(&path, true).await] {
            assert_eq!(said.refused, Some(FileRefusal::NotAFile), "{thing}");
        }
        let mut write = upload(1, b"x");
        write.overwrite = true;
        let said = host.write(&path, &write, b"x").await;
        assert_eq!(said.refused, Some(FileRefusal::NotAFile), "{thing}");
    }
    assert_eq!(
        host.read(&host.text("")).await.refused,
        Some(FileRefusal::Invalid)
    );
    let folder = host.dir.path().join("root").to_str().unwrap().to_owned();
    assert_eq!(
        host.read(&folder).await.refused,
        Some(FileRefusal::IsDirectory)
    );
}

#[tokio::test]
async fn abuse_22_set_user_id_bits_need_a_word_of_their_own() {
    let host = Host::new();
    let mut write = upload(1, b"x");
    for mode in [0o4755, 0o2755, 0o1755, 0o100_644] {
        write.mode = Some(mode);
        let said = host.write(&host.text("f"), &write, b"x").await;
        assert_eq!(said.refused, Some(FileRefusal::Invalid), "{mode:o}");
        assert!(!host.at("f").exists());
    }
    (write.mode, write.allow_special) = (Some(0o4755), true);
    assert_eq!(
        host.write(&host.text("f"), &write, b"x").await.refused,
        None
    );
    assert_eq!(fs::metadata(host.at("f")).unwrap().mode() & 0o7777, 0o4755);
}

/// Whoever may write into the directory can know the part's name.
#[tokio::test]
async fn abuse_22_a_part_that_somebody_else_has_put_there_is_not_written_to() {
    let host = Host::new();
    let write = upload(0xab, b"mine");
    let part = host.at(&format!(".loopback-{}.part", "ab".repeat(16)));
    let secret = host.dir.path().join("outside/secret");
    let refused = async || {
        let said = host.write(&host.text("f"), &write, b"mine").await;
        assert_eq!(said.refused, Some(FileRefusal::Permission), "{said:?}");
        assert_eq!(fs::read(&secret).unwrap(), b"canary");
        assert!(!host.at("f").exists());
    };
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(&secret, &part).unwrap();
    refused().await;
    fs::remove_file(&part).unwrap();
    symlink(&secret, &part).unwrap();
    refused().await;
    fs::remove_file(&part).unwrap();
    fs::write(&part, "").unwrap();
    fs::set_permissions(&part, fs::Permissions::from_mode(0o666)).unwrap();
    refused().await;
    fs::remove_file(&part).unwrap();
    assert_eq!(
        host.write(&host.text("f"), &write, b"mine").await.refused,
        None
    );
}

#[tokio::test]
async fn an_upload_that_is_cut_anywhere_goes_on_where_it_was() {
    for seed in 0..12_u64 {
        let host = Host::new();
        let length = 1 + usize::try_from(seed).unwrap() * 61_111;
        let content = bytes(seed, length);
        let mut write = upload(9, &content);
        let path = host.text("f");
        let cuts = bytes(seed + 100, 6);
        for cut in cuts {
            let held = host.held(&path, &write).await.held.unwrap();
            // Sometimes from a little before what is held.
            write.offset = held.saturating_sub(u64::from(cut % 3) * 1000);
            let from = usize::try_from(write.offset).unwrap();
            let until = from + (length - from) * usize::from(cut) / 300;
            let said = bring(&host.settings, &path, &write, &content[from..until]).await;
            assert_eq!((said.held, said.refused), (Some(write.offset), None));
            if until < length {
                assert!(said.sha256.is_none() && !host.at("f").exists());
                assert_eq!(host.held(&path, &write).await.held, Some(until as u64));
                assert_eq!((host.parts().len(), host.notes().len()), (1, 1));
            }
        }
        write.offset = host.held(&path, &write).await.held.unwrap();
        let said = host.write(&path, &write, &content).await;
        assert_eq!(said.refused, None, "seed {seed}");
        assert_eq!(fs::read(host.at("f")).unwrap(), content, "seed {seed}");
        assert!(host.parts().is_empty() && host.notes().is_empty());
        write.offset = 1;
        write.overwrite = true;
        let said = host.write(&path, &write, &content).await;
        assert_eq!(said.refused, Some(FileRefusal::Offset));
    }
}

#[tokio::test]
async fn a_download_goes_on_anywhere_and_begins_again_when_the_file_is_another() {
    let host = Host::new();
    let content = bytes(5, 700_001);
    fs::write(host.at("f"), &content).unwrap();
    let path = host.text("f");
    let version = host.stat(&path, false).await.meta.unwrap().version;
    for cut in bytes(6, 12) {
        let offset = content.len() as u64 * u64::from(cut) / 255;
        let read = FileRead {
            offset,
            length: (cut % 2 == 0).then_some(1000),
            version: version.clone(),
        };
        let said = ask(&host.settings, &path, Action::Read(read.clone())).await;
        let meta = said.meta.unwrap();
        let from = usize::try_from(offset).unwrap();
        let length = usize::try_from(meta.length).unwrap();
        assert_eq!(said.data, &content[from..from + length]);
        assert_eq!(said.sha256.unwrap(), sha256(&said.data));
        assert_eq!(meta.offset, offset);
        assert_eq!(
            length,
            (content.len() - from).min(read.length.map_or(usize::MAX, |_| 1000))
        );
    }
    // The same size and time: the kernel's own time of change tells it apart.
    let modified = fs::metadata(host.at("f")).unwrap().modified().unwrap();
    let other = bytes(7, 700_001);
    fs::write(host.at("f"), &other).unwrap();
    fs::File::options()
        .write(true)
        .open(host.at("f"))
        .unwrap()
        .set_modified(modified)
        .unwrap();
    let read = FileRead {
        offset: 500_000,
        length: None,
        version,
    };
    let said = ask(&host.settings, &path, Action::Read(read)).await;
    assert_eq!(said.meta.unwrap().offset, 0);
    assert_eq!(said.data, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_sent_has_no_digest() {
    let host = Host::new();
    fs::write(host.at("f"), bytes(1, 8 << 20)).unwrap();
    for change in ["grow", "cut", "overwrite"] {
        let (ours, theirs) = tokio::io::duplex(4 << 10);
        let (read, write) = tokio::io::split(theirs);
        let request = FileRequest {
            host: "hst_x".to_owned(),
            generation: 3,
            path: host.text("f"),
            max_bytes: 1 << 30,
            action: Some(Action::Read(FileRead::default())),
        };
        let mut served = tokio::task::JoinSet::new();
        served.spawn(serve(request, read, write, Arc::clone(&host.settings)));
        let (read, _write) = tokio::io::split(ours);
        let deadlines = Deadlines {
            idle: LIMIT,
            frame: LIMIT,
        };
        let mut reader = FrameReader::new(read, MAX_FRAME, deadlines);
        let first: FileReply = reader.next().await.unwrap().unwrap();
        assert!(matches!(first.body, Some(file_reply::Body::Meta(_))));
        // Most of it waits for us.
        let file = fs::File::options().write(true).open(host.at("f")).unwrap();
        match change {
            "grow" => file.set_len(9 << 20).unwrap(),
            "cut" => file.set_len(5 << 20).unwrap(),
            _ => std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).unwrap(),
        }
        drop(file);
        let mut last = None;
        while let Some(FileReply { body }) = reader.next().await.unwrap() {
            last = body;
        }
        let Some(file_reply::Body::Refused(refused)) = last else {
            panic!("{change}: {last:?}");
        };
        assert_eq!(refused.code(), FileRefusal::Changed, "{change}");
        served.join_next().await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn wrong_bytes_never_get_the_name_and_are_thrown_away() {
    let host = Host::new();
    let content = bytes(1, 100_000);
    let path = host.text("f");
    fs::write(host.at("f"), "old").unwrap();
    let mut write = upload(1, &content);
    write.overwrite = true;
    let mut wrong = content.clone();
    wrong[77] ^= 1;
    let said = host.write(&path, &write, &wrong).await;
    assert_eq!(said.refused, Some(FileRefusal::Digest));
    let mut long = content.clone();
    long.push(0);
    let said = host.write(&path, &write, &long).await;
    assert_eq!(said.refused, Some(FileRefusal::Invalid));
    // Right bytes, after a beginning that was wrong on the disk.
    bring(&host.settings, &path, &write, &wrong[..50_000]).await;
    write.offset = 50_000;
    let said = host.write(&path, &write, &content).await;
    assert_eq!(said.refused, Some(FileRefusal::Digest));
    assert_eq!(fs::read(host.at("f")).unwrap(), b"old");
    assert!(host.parts().is_empty() && host.notes().is_empty());
    assert_eq!(host.held(&path, &write).await.held, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_uploads_to_one_name_one_wins_whole() {
    let host = Host::new();
    let (one, other) = (bytes(1, 3 << 20), bytes(2, 3 << 20));
    let path = host.text("f");
    for _ in 0..5 {
        let (first, second) = (upload(1, &one), upload(2, &other));
        let (first, second) = tokio::join!(
            host.write(&path, &first, &one),
            host.write(&path, &second, &other)
        );
        let refused = [first.refused, second.refused];
        let winner = if refused[0].is_none() { &one } else { &other };
        assert!(refused.contains(&Some(FileRefusal::Exists)), "{refused:?}");
        assert!(refused.contains(&None), "{refused:?}");
        assert!(fs::read(host.at("f")).unwrap() == *winner);
        assert!(host.parts().is_empty() && host.notes().is_empty());
        fs::remove_file(host.at("f")).unwrap();
    }
    // The very same upload twice: one at a time.
    let mut same = upload(3, &one);
    same.overwrite = true;
    let (first, second) = tokio::join!(
        host.write(&path, &same, &one),
        host.write(&path, &same, &one)
    );
    assert!(first.refused.is_none() || second.refused.is_none());
    assert!(fs::read(host.at("f")).unwrap() == one);
    assert!(host.parts().is_empty());
}

#[tokio::test]
async fn a_full_disk_is_told_before_or_when_it_happens_and_not_kept_full() {
    let host = Host::new();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(host.dir.path().join("root"))
        .status();
    if !mounted.is_ok_and(|it| it.success()) {
        eprintln!("SKIPPED: no tmpfs can be mounted here; it needs root");
        return;
    }
    let unmount = || {
        std::process::Command::new("umount")
            .arg(host.dir.path().join("root"))
            .status()
    };
    let result = std::panic::AssertUnwindSafe(async {
        let content = bytes(1, 2 << 20);
        let path = host.text("f");
        let write = upload(1, &content);
        let said = host.write(&path, &write, &content).await;
        assert_eq!(
            (said.refused, said.held),
            (Some(FileRefusal::DiskFull), None)
        );
        // Room at first, and then no more.
        let content = bytes(2, 900 << 10);
        let write = upload(2, &content);
        bring(&host.settings, &path, &write, &content[..100_000]).await;
        fs::write(host.at("other"), bytes(3, 300 << 10)).unwrap();
        let mut rest = write.clone();
        rest.offset = 100_000;
        let said = host.write(&path, &rest, &content).await;
        assert_eq!(said.refused, Some(FileRefusal::DiskFull));
        fs::remove_file(host.at("other")).unwrap();
        let said = host.write(&path, &write, &content).await;
        assert_eq!(said.refused, None);
        assert!(host.parts().is_empty());
    });
    let outcome = futures_util::FutureExt::catch_unwind(result).await;
    assert!(unmount().unwrap().success());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[tokio::test]
async fn what_was_given_up_is_removed_after_a_day_and_nothing_else() {
    let host = Host::new();
    let content = bytes(1, 50_000);
    let write = upload(1, &content);
    bring(&host.settings, &host.text("f"), &write, &content[..10_000]).await;
    let other = upload(2, &content);
    bring(&host.settings, &host.text("g"), &other, &content[..10_000]).await;
    sweep(&host.settings);
    assert_eq!((host.parts().len(), host.notes().len()), (2, 2));
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    let age = |path: &Path| {
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap()
    };
    let [first, _] = &host.parts()[..] else {
        panic!()
    };
    age(&host.at(first));
    // One of a stranger, which nobody noted.
    let stranger = host.at(&format!(".loopback-{}.part", "0".repeat(32)));
    fs::write(&stranger, "x").unwrap();
    age(&stranger);
    sweep(&host.settings);
    assert_eq!((host.parts().len(), host.notes().len()), (2, 2));
    for note in host.notes() {
        age(&host.dir.path().join("state/uploads").join(note));
    }
    sweep(&host.settings);
    assert_eq!((host.parts().len(), host.notes().len()), (2, 1));
    assert!(stranger.exists());
}

#[tokio::test]
async fn the_owner_and_the_identity_of_the_host_have_the_last_word() {
    let host = Host::new();
    fs::write(host.at("f"), "x").unwrap();
    let ask_with = async |change: fn(&mut Settings)| {
        let mut settings = Settings::clone(&host.settings);
        change(&mut settings);
        let read = Action::Read(FileRead::default());
        ask(&Arc::new(settings), &host.text("f"), read)
            .await
            .refused
    };
    assert_eq!(ask_with(|_| {}).await, None);
    assert_eq!(
        ask_with(|it| it.paused = true).await,
        Some(FileRefusal::Paused)
    );
    assert_eq!(
        ask_with(|it| it.roots.clear()).await,
        Some(FileRefusal::Outside)
    );
    assert_eq!(
        ask_with(|it| it.generation = 4).await,
        Some(FileRefusal::NotMine)
    );
    assert_eq!(
        ask_with(|it| it.host = "hst_y".into()).await,
        Some(FileRefusal::NotMine)
    );
    let request = FileRequest {
        host: "hst_x".to_owned(),
        generation: 3,
        path: host.text("f"),
        max_bytes: 0,
        action: Some(Action::Read(FileRead::default())),
    };
    let said = converse(&host.settings, request.clone(), None).await;
    assert_eq!(said.refused, Some(FileRefusal::TooLarge));
    let nothing = FileRequest {
        action: None,
        ..request
    };
    let said = converse(&host.settings, nothing, None).await;
    assert_eq!(said.refused, Some(FileRefusal::Invalid));
    let mut write = upload(1, b"x");
    write.owner = "no-such-user-here".to_owned();
    let said = host.write(&host.text("g"), &write, b"x").await;
    assert_eq!(said.refused, Some(FileRefusal::NoSuchOwner));
}
