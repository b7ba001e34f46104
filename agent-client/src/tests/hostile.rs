//! Guests that lie, and hosts that are none.

use std::time::{Duration, Instant};

use agent_protocol::{Event, FromAgent, Reply, RequestId, ToAgent, WINDOW, frame, handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::AMPLE;
use crate::{AgentError, Client, ExecSpec, Secret};

/// Bytes a guest sends in answer to a request.
type Lie = fn(RequestId) -> Vec<u8>;

const SHORT: Duration = Duration::from_millis(200);

/// A client and the other end of its connection, past the handshake.
async fn taken_over() -> (Client, DuplexStream) {
    let secret = Secret::generate().unwrap();
    let (host, mut guest) = tokio::io::duplex(64 * 1024);
    let theirs = secret.clone();
    let guest = tokio::spawn(async move {
        handshake::accept(&mut guest, &theirs).await.unwrap();
        guest
    });
    let client = Client::connect(host, &secret, AMPLE).await.unwrap();
    (client, guest.await.unwrap())
}

/// The id of the next request that arrives.
async fn asked(guest: &mut DuplexStream) -> RequestId {
    match frame::read(guest).await.unwrap().unwrap() {
        ToAgent::Request { id, .. } => id,
        other => panic!("not a request: {other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_secret_is_named_as_such() {
    let (host, mut guest) = tokio::io::duplex(4096);
    let theirs = Secret::generate().unwrap();
    tokio::spawn(async move { handshake::accept(&mut guest, &theirs).await });
    let ours = Secret::generate().unwrap();
    let error = Client::connect(host, &ours, AMPLE).await.err().unwrap();
    assert!(matches!(error, AgentError::WrongSecret), "{error}");
}

#[tokio::test]
async fn whatever_answers_that_is_no_agent_is_named_as_such() {
    let (host, mut guest) = tokio::io::duplex(4096);
    guest
        .write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3 and so on and so on\r\n")
        .await
        .unwrap();
    let secret = Secret::generate().unwrap();
    let error = Client::connect(host, &secret, AMPLE).await.err().unwrap();
    assert!(matches!(error, AgentError::Garbage(_)), "{error}");

    let (host, guest) = tokio::io::duplex(4096);
    drop(guest);
    let error = Client::connect(host, &secret, AMPLE).await.err().unwrap();
    assert!(error.is_disconnect(), "{error}");

    let (host, _silent) = tokio::io::duplex(4096);
    let begun = Instant::now();
    let error = Client::connect(host, &secret, SHORT).await.err().unwrap();
    assert!(error.is_timeout() && begun.elapsed() < SHORT * 5, "{error}");
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let (client, mut guest) = taken_over().await;
    let begun = Instant::now();
    let error = client.ping(SHORT).await.unwrap_err();
    assert!(error.is_timeout() && begun.elapsed() < SHORT * 5, "{error}");
    assert_eq!(
        error.to_string(),
        "no answer from the agent to `ping` within 0.2 s"
    );
    // A program's end may take the agent a while to report, but not for ever.
    let begun = Instant::now();
    let error = client
        .exec(ExecSpec::new(["true"]), SHORT)
        .await
        .unwrap_err();
    assert!(
        error.is_timeout() && begun.elapsed() < SHORT + Duration::from_secs(2),
        "{error}"
    );
    // The guest was told to stop, and a late answer is no garbage.
    let ping = asked(&mut guest).await;
    let cancel: ToAgent = frame::read(&mut guest).await.unwrap().unwrap();
    assert_eq!(cancel, ToAgent::Cancel { id: ping });
    frame::write(
        &mut guest,
        &FromAgent::Reply {
            id: ping,
            result: Ok(Reply::Done),
        },
    )
    .await
    .unwrap();
    let error = client.ping(SHORT).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test]
async fn a_guest_that_does_not_even_read_holds_nobody() {
    let (client, _guest) = taken_over().await;
    let begun = Instant::now();
    // More than the pipe and the queue take.
    let error = client
        .put_file("/x", 0o644, &[0; 8_000_000], SHORT)
        .await
        .unwrap_err();
    assert!(error.is_timeout(), "{error}");
    let error = client.ping(SHORT).await.unwrap_err();
    assert!(
        error.is_timeout() && begun.elapsed() < SHORT * 10,
        "{error}"
    );
}

#[tokio::test]
async fn every_lie_ends_the_connection_with_its_name() {
    let lies: [(&str, Lie); 6] = [
        ("no valid message", |_| frame_of(&[255; 40])),
        ("announced a frame", |_| u32::MAX.to_le_bytes().to_vec()),
        ("was never asked", |_| {
            reply(FromAgent::Reply {
                id: RequestId(99),
                result: Ok(Reply::Done),
            })
        }),
        ("does not answer", |id| {
            reply(FromAgent::Reply {
                id,
                result: Ok(Reply::Done),
            })
        }),
        ("an event that does not belong", |id| {
            reply(FromAgent::Event {
                id,
                event: Event::Stdout(vec![1].into()),
            })
        }),
        ("granted more", |id| {
            reply(FromAgent::Grant { id, bytes: WINDOW })
        }),
    ];
    for (name, lie) in lies {
        let (client, mut guest) = taken_over().await;
        let ping = tokio::spawn(async move { client.ping(AMPLE).await });
        let id = asked(&mut guest).await;
        guest.write_all(&lie(id)).await.unwrap();
        let error = ping.await.unwrap().unwrap_err();
        assert!(matches!(error, AgentError::Garbage(_)), "{name}: {error}");
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_flood_past_the_window_is_cut_off() {
    let (client, mut guest) = taken_over().await;
    // Nobody takes what arrives for this one.
    let mut session = client.start(ExecSpec::new(["yes"]), AMPLE).await.unwrap();
    let id = asked(&mut guest).await;
    let flood = reply(FromAgent::Event {
        id,
        event: Event::Stdout(vec![b'y'; 30_000].into()),
    });
    let mut sent = 0;
    while guest.write_all(&flood).await.is_ok() {
        sent += 1;
        assert!(sent < 100, "3 MB taken");
    }
    let error = loop {
        match session.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        error.to_string().contains("more than it was granted"),
        "{error}"
    );
}

#[tokio::test]
async fn a_lost_connection_is_told_to_all_who_wait_and_who_come_after() {
    let (client, mut guest) = taken_over().await;
    let (one, two) = (client.clone(), client.clone());
    let waiting = [
        tokio::spawn(async move { one.ping(AMPLE).await.unwrap_err() }),
        tokio::spawn(async move { two.sync(AMPLE).await.unwrap_err() }),
    ];
    asked(&mut guest).await;
    asked(&mut guest).await;
    // Half a frame, then the end: a machine that died.
    guest.write_all(&[100, 0, 0, 0, 1, 2, 3]).await.unwrap();
    drop(guest);
    for task in waiting {
        let error = task.await.unwrap();
        assert!(error.is_disconnect(), "{error}");
    }
    assert!(client.ping(AMPLE).await.unwrap_err().is_disconnect());
}

#[tokio::test]
async fn the_agent_hangs_up_on_garbage_and_on_strangers() {
    let secret = Secret::generate().unwrap();
    let agent = std::sync::Arc::new(guest_agent::Agent::new(secret.clone()));
    let serve = |stream| tokio::spawn(guest_agent::connection::serve(stream, agent.clone()));

    let (mut host, guest) = tokio::io::duplex(4096);
    let served = serve(guest);
    host.write_all(b"GET / HTTP/1.1\r\nHost: vexfs\r\n\r\n........................")
        .await
        .unwrap();
    assert!(host.read_to_end(&mut Vec::new()).await.is_ok());
    served.await.unwrap().unwrap_err();

    let (host, guest) = tokio::io::duplex(4096);
    let served = serve(guest);
    let wrong = Secret::generate().unwrap();
    let error = Client::connect(host, &wrong, AMPLE).await.err().unwrap();
    assert!(matches!(error, AgentError::WrongSecret), "{error}");
    served.await.unwrap().unwrap_err();

    for garbage in [frame_of(&[200; 64]), u32::MAX.to_le_bytes().to_vec()] {
        let (mut host, guest) = tokio::io::duplex(4096);
        let served = serve(guest);
        handshake::connect(&mut host, &secret).await.unwrap();
        host.write_all(&garbage).await.unwrap();
        host.read_to_end(&mut Vec::new()).await.unwrap();
        served.await.unwrap().unwrap_err();
    }
    // All that did not harm the next one.
    let (host, guest) = tokio::io::duplex(4096);
    serve(guest);
    let client = Client::connect(host, &secret, AMPLE).await.unwrap();
    client.ping(AMPLE).await.unwrap();
}

fn frame_of(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_le_bytes(), bytes].concat()
}

fn reply(message: FromAgent) -> Vec<u8> {
    frame::to_bytes(&message).unwrap()
}
