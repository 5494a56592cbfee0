//! What a client of the doors waits for: a question and its answer over a real socket, and a death until its client has it.
//!
//! The doors run on a thread of their own, as in the sidecar; the client is this thread.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use pbx_doors::heartbeat::frame::frame;
use pbx_doors::heartbeat::message::Message;
use pbx_doors::heartbeat::{self, Settings, peers};
use pbx_doors::{OnDropped, View, fixtures, haast};
use tokio::sync::{mpsc, watch};

#[path = "../tests/support/runtime.rs"]
mod runtime;

struct Doors {
    folder: tempfile::TempDir,
    view: watch::Sender<Arc<View>>,
}

impl Doors {
    fn open() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let view = watch::Sender::new(Arc::new(fixtures::two_nodes()));
        let (haast_socket, heartbeat_socket) = sockets_in(folder.path());
        let receiver = view.subscribe();
        let (actions, _) = mpsc::channel(1);
        let door = haast::Door {
            view: view.subscribe(),
            actions,
            on_dropped: OnDropped::new(|_| {}),
        };
        runtime::on_a_thread(async move {
            let listener = haast::bind(&haast_socket).expect("a free path");
            tokio::spawn(haast::serve(listener, door));
            let listener = heartbeat::bind(&heartbeat_socket).expect("a free path");
            let (hub, _) = peers::border();
            let settings = Settings::default();
            let serve = heartbeat::serve(listener, settings, receiver, hub, OnDropped::new(|_| {}));
            tokio::spawn(serve);
        });
        Self { folder, view }
    }

    fn haast(&self) -> UnixStream {
        let mut stream = UnixStream::connect(sockets_in(self.folder.path()).0).expect("a listener");
        read_until(&mut stream, b"ready>");
        stream
    }

    fn heartbeat(&self) -> UnixStream {
        let mut stream = UnixStream::connect(sockets_in(self.folder.path()).1).expect("a listener");
        let pid = std::process::id().to_string();
        let signon = request("signon")
            .with("pid", &pid)
            .with("from_id", &pid)
            .with("uid", &rustix::process::geteuid().as_raw().to_string())
            .with("gid", &rustix::process::getegid().as_raw().to_string());
        ask(&mut stream, &signon);
        stream
    }
}

fn sockets_in(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("haast.sock"), folder.join("register"))
}

fn request(request_type: &str) -> Message {
    Message::of_type("hbapi-req").with("reqtype", request_type)
}

fn ask(stream: &mut UnixStream, request: &Message) {
    let frame = frame(&request.encode()).expect("a short request");
    stream.write_all(&frame).expect("an open door");
    read_until(stream, b"<<<\n\0");
}

fn read_until(stream: &mut UnixStream, end: &[u8]) {
    let mut read = Vec::new();
    let mut piece = [0; 8192];
    while !read.ends_with(end) {
        let bytes = stream.read(&mut piece).expect("an open door");
        assert!(bytes > 0, "the door closed");
        read.extend_from_slice(&piece[..bytes]);
    }
}

fn questions(criterion: &mut Criterion) {
    let doors = Doors::open();
    let mut stream = doors.haast();
    criterion.bench_function("haast getstatus, one connection", |bencher| {
        bencher.iter(|| {
            stream
                .write_all(b"command:getstatus\n\n")
                .expect("an open door");
            read_until(&mut stream, b"ready>");
        });
    });
    let mut stream = doors.heartbeat();
    let question = request("nodestatus").with("node", "office-1");
    criterion.bench_function("heartbeat nodestatus, one connection", |bencher| {
        bencher.iter(|| ask(&mut stream, &question));
    });
    criterion.bench_function("heartbeat connect, signon, nodestatus", |bencher| {
        bencher.iter(|| ask(&mut doors.heartbeat(), &question));
    });
}

fn deaths(criterion: &mut Criterion) {
    let doors = Doors::open();
    // What is measured is the way, not the wait from warntime to deadtime.
    doors.view.send_modify(|view| {
        let view = Arc::make_mut(view);
        view.deadtime = view.warntime;
    });
    let mut client = doors.heartbeat();
    let mut lives = true;
    criterion.bench_function(
        "heartbeat death or return until its client has it",
        |bencher| {
            bencher.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    lives = !lives;
                    let began = Instant::now();
                    doors
                        .view
                        .send_modify(|view| Arc::make_mut(view).nodes[1].is_up = lives);
                    // The node's message, and its link's.
                    read_until(
                        &mut client,
                        if lives {
                            b"st=up\n<<<\n\0"
                        } else {
                            b"st=dead\n<<<\n\0"
                        },
                    );
                    took += began.elapsed();
                }
                took
            });
        },
    );
}

criterion_group!(benches, questions, deaths);
criterion_main!(benches);
