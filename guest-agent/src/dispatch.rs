//! Which request is which function.

use std::sync::Arc;

use agent_protocol::message::KilledBecause;
use agent_protocol::{Fault, FaultKind, FromAgent, Reply, Request, RequestId};

use crate::flow::{Context, Queue};
use crate::power::Afterwards;
use crate::{Agent, clock, exec, files, info, kmsg, module, mount, power, reclaim};

/// Does one request and sends its reply.
pub async fn answer(
    id: RequestId,
    request: Request,
    mut context: Context,
    queue: &Queue,
    agent: &Arc<Agent>,
) {
    let mut afterwards = None;
    let result = act(request, &mut context, agent, &mut afterwards).await;
    if let (Some(afterwards), true) = (afterwards, result.is_ok()) {
        queue.send_through(&FromAgent::Reply { id, result }).await;
        afterwards.carry_out().await;
        return;
    }
    if let Ok(Err(error)) = queue.send(&FromAgent::Reply { id, result }).await {
        let fault = Fault::new(FaultKind::TooLarge, error.to_string());
        // When even this cannot be sent, the connection is gone.
        let _ = queue
            .send(&FromAgent::Reply {
                id,
                result: Err(fault),
            })
            .await;
    }
}

async fn act(
    request: Request,
    context: &mut Context,
    agent: &Arc<Agent>,
    afterwards: &mut Option<Afterwards>,
) -> Result<Reply, Fault> {
    // These two end in a way of their own when stopped: with a result, not a fault.
    let stops_itself = matches!(request, Request::Exec(_) | Request::KmsgRead { .. });
    let Context {
        outlet,
        inlet,
        stop,
    } = context;
    let stop = &*stop;
    let work = async {
        match request {
            Request::Ping => info::pong(agent),
            Request::Info => info::system().await,
            Request::Exec(request) => exec::run(request, outlet, inlet, stop, agent).await,
            Request::PutFile { path, mode } => files::put(path, mode, inlet).await,
            Request::GetFile {
                path,
                offset,
                limit,
            } => files::get(path, offset, limit, outlet).await,
            Request::Stat { path, follow } => files::stat(path, follow).await,
            Request::List { path } => files::list(path, outlet).await,
            Request::LoadModule { module, parameters } => module::load(module, parameters).await,
            Request::UnloadModule { name } => module::unload(name).await,
            Request::ListModules => module::list().await,
            Request::Mount(request) => mount::mount(request).await,
            Request::Unmount { target, flags } => mount::unmount(target, flags).await,
            Request::KmsgMark => kmsg::mark(agent).await,
            Request::KmsgRead { from, follow } => kmsg::read(from, follow, outlet, stop).await,
            Request::SetClock {
                seconds,
                nanoseconds,
            } => clock::set(seconds, nanoseconds),
            Request::AddEntropy { bytes } => clock::add_entropy(&bytes.0),
            Request::Sync => power::sync().await,
            Request::Power { action, how } => power::end(action, how, afterwards).await,
            Request::SysRq { key } => power::sysrq(key, afterwards).await,
            Request::Reclaim { caches } => reclaim::reclaim(caches).await,
            Request::ReadFiles { paths } => files::read_whole(paths).await,
        }
    };
    tokio::select! {
        result = work => result,
        because = stop.wait(), if !stops_itself => Err(stopped(because)),
    }
}

/// The fault of a request that was stopped.
#[must_use]
pub fn stopped(because: KilledBecause) -> Fault {
    match because {
        KilledBecause::Deadline => Fault::new(
            FaultKind::DeadlinePassed,
            "the request's deadline passed; what the kernel was asked may still be under way",
        ),
        KilledBecause::Cancelled => Fault::new(FaultKind::Cancelled, "the host cancelled it"),
    }
}
