//! Arbitrary messages.

use agent_protocol::message::{
    DirEntry, Ended, ExecRequest, ExecResult, FileKind, FileStat, GuestPath, KilledBecause,
    KmsgRecord, ModuleInfo, ModuleSource, MountFlags, MountInfo, MountRequest, Pong, PowerAction,
    PowerHow, SystemInfo, UnmountFlags, WindowSize,
};
use agent_protocol::{
    Bytes, Event, Fault, FaultKind, FromAgent, Input, Reply, Request, RequestId, ToAgent,
};
use proptest::prelude::*;
use proptest::sample::select;

fn path() -> impl Strategy<Value = GuestPath> {
    any::<Vec<u8>>().prop_map(GuestPath::from_bytes)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    any::<Vec<u8>>().prop_map(Bytes)
}

fn window() -> impl Strategy<Value = WindowSize> {
    any::<(u16, u16)>().prop_map(|(rows, columns)| WindowSize { rows, columns })
}

fn exec() -> impl Strategy<Value = Request> {
    (
        any::<Vec<String>>(),
        any::<Vec<(String, String)>>(),
        proptest::option::of(path()),
        any::<Option<String>>(),
        any::<bool>(),
        proptest::option::of(window()),
    )
        .prop_map(|(argv, env, cwd, user, stdin, terminal)| {
            Request::Exec(ExecRequest {
                argv,
                env,
                cwd,
                user,
                stdin,
                terminal,
            })
        })
}

fn request() -> impl Strategy<Value = Request> {
    let mount = (
        path(),
        path(),
        any::<String>(),
        any::<u64>(),
        any::<String>(),
    )
        .prop_map(|(source, target, fstype, flags, data)| {
            let flags = MountFlags(flags);
            Request::Mount(MountRequest {
                source,
                target,
                fstype,
                flags,
                data,
            })
        });
    let module = prop_oneof![
        any::<String>().prop_map(ModuleSource::Name),
        path().prop_map(ModuleSource::File)
    ];
    prop_oneof![
        Just(Request::Ping),
        Just(Request::Info),
        Just(Request::ListModules),
        Just(Request::KmsgMark),
        Just(Request::Sync),
        any::<String>().prop_map(|caches| Request::Reclaim { caches }),
        proptest::collection::vec(path(), 0..6).prop_map(|paths| Request::ReadFiles { paths }),
        exec(),
        (path(), any::<u32>()).prop_map(|(path, mode)| Request::PutFile { path, mode }),
        (path(), any::<u64>(), any::<Option<u64>>()).prop_map(|(path, offset, limit)| {
            Request::GetFile {
                path,
                offset,
                limit,
            }
        }),
        (path(), any::<bool>()).prop_map(|(path, follow)| Request::Stat { path, follow }),
        path().prop_map(|path| Request::List { path }),
        (module, any::<String>())
            .prop_map(|(module, parameters)| Request::LoadModule { module, parameters }),
        any::<String>().prop_map(|name| Request::UnloadModule { name }),
        mount,
        (path(), any::<bool>(), any::<bool>()).prop_map(|(target, force, detach)| {
            Request::Unmount {
                target,
                flags: UnmountFlags { force, detach },
            }
        }),
        (any::<u64>(), any::<bool>()).prop_map(|(from, follow)| Request::KmsgRead { from, follow }),
        (any::<i64>(), any::<u32>()).prop_map(|(seconds, nanoseconds)| Request::SetClock {
            seconds,
            nanoseconds
        }),
        bytes().prop_map(|bytes| Request::AddEntropy { bytes }),
        (
            select(vec![PowerAction::Reboot, PowerAction::PowerOff]),
            select(vec![PowerHow::Orderly, PowerHow::Forced])
        )
            .prop_map(|(action, how)| Request::Power { action, how }),
        any::<u8>().prop_map(|key| Request::SysRq { key }),
    ]
}

/// Anything a host may say.
pub fn to_agent() -> impl Strategy<Value = ToAgent> {
    let id = || any::<u64>().prop_map(RequestId);
    let input = prop_oneof![
        bytes().prop_map(Input::Data),
        Just(Input::End),
        window().prop_map(Input::Resize)
    ];
    prop_oneof![
        (id(), any::<u64>(), request()).prop_map(|(id, deadline_ms, request)| ToAgent::Request {
            id,
            deadline_ms,
            request
        }),
        (id(), input).prop_map(|(id, input)| ToAgent::Input { id, input }),
        id().prop_map(|id| ToAgent::Cancel { id }),
        (id(), any::<u32>()).prop_map(|(id, bytes)| ToAgent::Grant { id, bytes }),
    ]
}

fn stat() -> impl Strategy<Value = FileStat> {
    let kind = select(vec![FileKind::File, FileKind::Symlink, FileKind::Other]);
    (
        kind,
        any::<[u32; 3]>(),
        any::<[u64; 6]>(),
        any::<(i64, u32)>(),
        proptest::option::of(path()),
    )
        .prop_map(
            |(kind, small, large, (modified_s, modified_ns), link_target)| {
                let [mode, uid, gid] = small;
                let [size, blocks, links, inode, device, special] = large;
                FileStat {
                    kind,
                    mode,
                    uid,
                    gid,
                    size,
                    blocks,
                    links,
                    inode,
                    device,
                    special,
                    modified_s,
                    modified_ns,
                    link_target,
                }
            },
        )
}

fn record() -> impl Strategy<Value = KmsgRecord> {
    any::<(u64, u64, u16, u8, char, String, String)>().prop_map(
        |(sequence, time_us, facility, level, continuation, text, properties)| KmsgRecord {
            sequence,
            time_us,
            facility,
            level,
            continuation,
            text,
            properties,
        },
    )
}

fn module() -> impl Strategy<Value = ModuleInfo> {
    any::<(String, u64, i32, String, String, Option<String>, String)>().prop_map(
        |(name, size, references, used_by, state, version, taint)| ModuleInfo {
            name,
            size,
            references,
            used_by,
            state,
            version,
            taint,
        },
    )
}

fn info() -> impl Strategy<Value = SystemInfo> {
    let mount = (any::<(String, String, String)>(), path()).prop_map(
        |((source, fstype, options), target)| MountInfo {
            source,
            target,
            fstype,
            options,
        },
    );
    (
        any::<[String; 8]>(),
        any::<(u64, i64, u32, [f32; 3], [u64; 3], u64)>(),
        proptest::collection::vec(mount, 0..5),
        proptest::collection::vec(module(), 0..5),
    )
        .prop_map(
            |(texts, (uptime_ms, clock_ms, cpus, load, memory, taint), mounts, modules)| {
                let [agent_version, kernel_release, kernel_version, machine, ..] = texts.clone();
                let [_, _, _, _, cmdline, boot_id, machine_id, hostname] = texts;
                let [memory_total, memory_free, memory_available] = memory;
                SystemInfo {
                    agent_version,
                    kernel_release,
                    kernel_version,
                    machine,
                    cmdline,
                    boot_id,
                    machine_id,
                    hostname,
                    uptime_ms,
                    clock_ms,
                    cpus,
                    load,
                    memory_total,
                    memory_free,
                    memory_available,
                    taint,
                    mounts,
                    modules,
                }
            },
        )
}

fn reply() -> impl Strategy<Value = Reply> {
    let ended = prop_oneof![
        any::<i32>().prop_map(Ended::Exited),
        (any::<i32>(), any::<bool>()).prop_map(|(signal, core_dumped)| Ended::Signalled {
            signal,
            core_dumped
        }),
        Just(Ended::Unkillable),
    ];
    let killed = select(vec![
        None,
        Some(KilledBecause::Deadline),
        Some(KilledBecause::Cancelled),
    ]);
    prop_oneof![
        Just(Reply::Done),
        any::<(String, u64, u64)>().prop_map(|(agent_version, agent_uptime_ms, agent_resident)| {
            Reply::Pong(Pong {
                agent_version,
                agent_uptime_ms,
                agent_resident,
            })
        }),
        info().prop_map(|info| Reply::Info(Box::new(info))),
        (ended, killed, any::<bool>(), any::<u64>()).prop_map(
            |(ended, killed, left_behind, ran_ms)| {
                Reply::Exec(ExecResult {
                    ended,
                    killed,
                    left_behind,
                    ran_ms,
                })
            }
        ),
        any::<(u64, u32)>().prop_map(|(bytes, mode)| Reply::Transferred { bytes, mode }),
        stat().prop_map(Reply::Stat),
        proptest::collection::vec(module(), 0..20).prop_map(Reply::Modules),
        any::<u64>().prop_map(|next| Reply::Mark { next }),
        proptest::collection::vec(any::<String>(), 0..4)
            .prop_map(|merged| Reply::Reclaimed { merged }),
        proptest::collection::vec(bytes(), 0..6).prop_map(|files| Reply::Contents { files }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let entry = (path(), stat()).prop_map(|(name, stat)| DirEntry { name, stat });
    prop_oneof![
        bytes().prop_map(Event::Stdout),
        bytes().prop_map(Event::Stderr),
        bytes().prop_map(Event::Data),
        proptest::collection::vec(entry, 0..20).prop_map(Event::Entries),
        proptest::collection::vec(record(), 0..20).prop_map(Event::Kmsg),
        any::<u64>().prop_map(|records| Event::KmsgLost { records }),
    ]
}

/// Anything an agent may say.
pub fn from_agent() -> impl Strategy<Value = FromAgent> {
    let id = || any::<u64>().prop_map(RequestId);
    let fault = (
        select(vec![FaultKind::Denied, FaultKind::System]),
        any::<(Option<i32>, String)>(),
    )
        .prop_map(|(kind, (errno, message))| Fault {
            kind,
            errno,
            message,
        });
    let result = prop_oneof![reply().prop_map(Ok), fault.prop_map(Err)];
    prop_oneof![
        (id(), result).prop_map(|(id, result)| FromAgent::Reply { id, result }),
        (id(), event()).prop_map(|(id, event)| FromAgent::Event { id, event }),
        (id(), any::<u32>()).prop_map(|(id, bytes)| FromAgent::Grant { id, bytes }),
    ]
}
