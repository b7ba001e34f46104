//! Deadlines by the clock of a machine that the host does not always run.

use std::time::{Duration, Instant};

use super::super::Chunk;
use super::*;

const DEADLINE: Duration = Duration::from_millis(300);
const LOST: Duration = Duration::from_millis(1200);

/// An agent in a machine that will lose [`LOST`] from now on.
async fn kept_waiting() -> Pair {
    let now = tokio::time::Instant::now();
    let clock = Clock::told(now);
    clock.lose(now, now + LOST, LOST);
    pair_by(clock).await
}

/// Whether something took the deadline and what was lost, and not much more.
fn in_time(begun: Instant) -> bool {
    let took = begun.elapsed();
    // Connecting took some of what was lost.
    took > LOST && took < DEADLINE + LOST + Duration::from_secs(2)
}

#[tokio::test]
async fn a_request_of_a_machine_kept_waiting_is_not_late() {
    let Pair { client, .. } = kept_waiting().await;
    let output = client.exec(sh("sleep 0.9; echo done"), DEADLINE).await;
    let output = output.unwrap();
    assert!(output.success(), "{}", output.ending());
    assert_eq!(output.stdout_text(), "done\n");
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_at_its_deadline_by_that_clock() {
    let Pair { client, .. } = kept_waiting().await;
    let begun = Instant::now();
    let output = client
        .exec(sh("echo $$; sleep 1000"), DEADLINE)
        .await
        .unwrap();
    assert!(in_time(begun), "{:?}", begun.elapsed());
    assert!(output.timed_out(), "{}", output.ending());
    assert!(
        output
            .ending()
            .starts_with("was killed at its deadline after 1.")
    );
    gone(&output.stdout_text()).await;

    // A flood puts its end off no more than a silence does.
    let Pair { client, .. } = kept_waiting().await;
    let begun = Instant::now();
    let mut flood = client
        .start(ExecSpec::new(["yes"]), DEADLINE)
        .await
        .unwrap();
    let result = loop {
        if let Chunk::Ended(result) = flood.next().await.unwrap() {
            break result;
        }
    };
    assert!(
        result.timed_out() && in_time(begun),
        "{:?}",
        begun.elapsed()
    );
    // One the caller has cancelled is no late one.
    let mut cancelled = client.start(sh("echo; sleep 9"), AMPLE).await.unwrap();
    assert_eq!(
        cancelled.next().await.unwrap(),
        Chunk::Stdout(b"\n".to_vec())
    );
    cancelled.cancel().await.unwrap();
    let Chunk::Ended(result) = cancelled.next().await.unwrap() else {
        panic!("sleep says nothing");
    };
    assert!(!result.timed_out() && !result.success());
}

#[tokio::test]
async fn a_silence_ends_at_its_deadline_by_that_clock() {
    let now = tokio::time::Instant::now();
    let clock = Clock::told(now);
    clock.lose(now, now + LOST, LOST);
    let secret = Secret::generate().unwrap();
    let (host, _silent) = tokio::io::duplex(4096);
    let begun = Instant::now();
    let error = Client::connect_by(clock, host, &secret, DEADLINE).await;
    let error = error.err().unwrap();
    assert!(in_time(begun), "{:?}", begun.elapsed());
    assert_eq!(
        error.to_string(),
        "no answer from the agent to `connect` within 0.3 s \
         (the host kept its machine waiting for another 1 s)"
    );
}
