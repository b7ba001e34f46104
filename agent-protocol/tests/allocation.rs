//! Counts what reading and decoding a frame holds, whatever is in it. One test to a binary: the
//! allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_protocol::message::{
    DirEntry, ExecRequest, FileKind, FileStat, GuestPath, KmsgRecord, ModuleInfo, MountInfo,
    SystemInfo,
};
use agent_protocol::{
    Event, FromAgent, MAX_FRAME, MAX_ITEMS, MEMORY_CAP, Reply, Request, RequestId, ToAgent, codec,
    frame,
};
use serde::de::DeserializeOwned;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn take(size: usize) {
    let held = HELD.fetch_add(size, Ordering::Relaxed) + size;
    MOST.fetch_max(held, Ordering::Relaxed);
}

#[allow(unsafe_code)]
// SAFETY: passes everything on to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    // `realloc` is the default: allocate, copy, free. So growing counts old and new together.
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes held at once while `bytes` are read and decoded as `T`, and whether they were one.
fn most_held<T: DeserializeOwned>(bytes: &[u8]) -> (usize, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let mut stream = bytes;
    let whole = runtime.block_on(frame::read::<T, _>(&mut stream)).is_ok();
    (MOST.load(Ordering::Relaxed) - before, whole)
}

fn check(name: &str, frame: &[u8]) {
    for (kind, (held, _)) in [
        ("request", most_held::<ToAgent>(frame)),
        ("answer", most_held::<FromAgent>(frame)),
    ] {
        assert!(
            held <= MEMORY_CAP,
            "{name} read as {kind} held {held} bytes"
        );
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_le_bytes(), body].concat()
}

/// Valid messages made to swell: as many elements as allowed, as little on the wire as possible,
/// and the rest of the frame filled with text.
fn largest() -> Vec<(&'static str, Vec<u8>)> {
    let module = ModuleInfo {
        name: String::new(),
        size: 0,
        references: 0,
        used_by: String::new(),
        state: String::new(),
        version: Some(String::new()),
        taint: String::new(),
    };
    let mount = MountInfo {
        source: String::new(),
        target: GuestPath::from_bytes([]),
        fstype: String::new(),
        options: String::new(),
    };
    let stat = FileStat {
        kind: FileKind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        links: 0,
        inode: 0,
        device: 0,
        special: 0,
        modified_s: 0,
        modified_ns: 0,
        link_target: None,
    };
    let entry = DirEntry {
        name: GuestPath::from_bytes([]),
        stat,
    };
    let record = KmsgRecord {
        sequence: 0,
        time_us: 0,
        facility: 0,
        level: 0,
        continuation: '-',
        text: String::new(),
        properties: String::new(),
    };
    let id = RequestId(1);
    let reply = |reply| {
        codec::encode(&FromAgent::Reply {
            id,
            result: Ok(reply),
        })
    };
    let event = |event| codec::encode(&FromAgent::Event { id, event });
    // How much text beside the elements fits is found by trying.
    let fill = |name, make: &dyn Fn(String) -> Result<Vec<u8>, codec::CodecError>| {
        let mut length = MAX_FRAME;
        loop {
            match make("x".repeat(length)) {
                Ok(bytes) => return (name, bytes),
                Err(_) => length -= 1024,
            }
        }
    };
    vec![
        fill("modules", &|name| {
            let mut modules = vec![module.clone(); MAX_ITEMS];
            modules[0].name = name;
            reply(Reply::Modules(modules))
        }),
        fill("info", &|cmdline| {
            reply(Reply::Info(Box::new(SystemInfo {
                agent_version: String::new(),
                kernel_release: String::new(),
                kernel_version: String::new(),
                machine: String::new(),
                cmdline,
                boot_id: String::new(),
                machine_id: String::new(),
                hostname: String::new(),
                uptime_ms: 0,
                clock_ms: 0,
                cpus: 0,
                load: [0.0; 3],
                memory_total: 0,
                memory_free: 0,
                memory_available: 0,
                taint: 0,
                mounts: vec![mount.clone(); MAX_ITEMS],
                modules: vec![module.clone(); MAX_ITEMS],
            })))
        }),
        fill("entries", &|name| {
            let mut entries = vec![entry.clone(); MAX_ITEMS];
            entries[0].name = name.into();
            event(Event::Entries(entries))
        }),
        fill("kernel log", &|text| {
            let mut records = vec![record.clone(); MAX_ITEMS];
            records[0].text = text;
            event(Event::Kmsg(records))
        }),
        fill("program", &|argument| {
            let mut argv = vec![String::new(); MAX_ITEMS];
            argv[0] = argument;
            let env = vec![(String::new(), String::new()); MAX_ITEMS];
            let request = Request::Exec(ExecRequest {
                argv,
                env,
                cwd: None,
                user: None,
                stdin: false,
                terminal: None,
            });
            codec::encode(&ToAgent::Request {
                id,
                deadline_ms: 0,
                request,
            })
        }),
    ]
}

#[test]
fn nothing_that_arrives_holds_more_than_the_cap() {
    let mut largest_seen = 0;
    for (name, body) in largest() {
        let frame = framed(&body);
        check(name, &frame);
        let held = most_held::<ToAgent>(&frame)
            .0
            .max(most_held::<FromAgent>(&frame).0);
        let whole = most_held::<ToAgent>(&frame).1 || most_held::<FromAgent>(&frame).1;
        assert!(
            whole,
            "{name} must be a valid message, or this test tests nothing"
        );
        println!(
            "{name}: {} bytes on the wire, at most {held} held",
            frame.len()
        );
        largest_seen = largest_seen.max(held);

        // The same cut short, and with lies among its first bytes, where lengths and kinds are.
        for cut in (0..frame.len()).step_by(32_749) {
            check(name, &frame[..cut]);
        }
        for at in 0..24 {
            for lie in [0x01, 0xff] {
                let mut frame = frame.clone();
                frame[at] = lie;
                check(name, &frame);
            }
        }
    }
    // It measures at all, and the cap is not so generous that it means nothing.
    assert!(largest_seen > MEMORY_CAP / 2, "{largest_seen}");

    // An announcement alone costs nothing but what has arrived.
    let announcement = u32::try_from(MAX_FRAME).unwrap().to_le_bytes();
    let (held, whole) = most_held::<ToAgent>(&announcement);
    assert!(
        !whole && held < 64 * 1024,
        "{held} bytes for an announcement"
    );
    let (held, _) = most_held::<ToAgent>(&u32::MAX.to_le_bytes());
    assert!(held < 1024, "{held} bytes for a lie");
}
