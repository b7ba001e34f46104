//! Running programs.

use std::time::{Duration, Instant};

use agent_protocol::FaultKind;
use agent_protocol::message::Ended;

use super::{AMPLE, Pair, alive, gone, pair, sh};
use crate::{AgentError, Chunk, ExecSpec};

#[tokio::test]
async fn output_code_and_signal_come_back() {
    let Pair { client, .. } = pair().await;
    let output = client
        .exec(sh("echo out; echo err >&2; exit 3"), AMPLE)
        .await
        .unwrap();
    assert_eq!(
        (output.stdout_text(), output.stderr_text()),
        ("out\n".into(), "err\n".into())
    );
    assert_eq!(output.code(), Some(3));
    assert!(!output.success() && !output.timed_out() && !output.truncated);
    assert_eq!(output.ending(), "exited with code 3");

    let output = client.exec(sh("kill -SEGV $$"), AMPLE).await.unwrap();
    assert!(matches!(
        output.result.ended,
        Ended::Signalled { signal: 11, .. }
    ));
    assert!(
        client
            .exec(ExecSpec::new(["true"]), AMPLE)
            .await
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn the_environment_is_clean_and_as_told() {
    let Pair { client, .. } = pair().await;
    let spec = ExecSpec::new(["env"])
        .env("COLOUR", "grün")
        .env("LANG", "C");
    let text = client.exec(spec, AMPLE).await.unwrap().stdout_text();
    let mut names: Vec<_> = text
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["COLOUR", "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"]
    );
    assert!(text.contains("COLOUR=grün\n") && text.contains("LANG=C\n"));

    let spec = sh("pwd; id -u; id -G; echo $HOME; cat /proc/self/oom_score_adj").cwd("/usr/lib");
    let root = client
        .exec(spec.clone(), AMPLE)
        .await
        .unwrap()
        .stdout_text();
    assert!(root.starts_with("/usr/lib\n0\n"), "{root}");
    assert!(root.ends_with("/root\n0\n"), "{root}");
    let nobody = client
        .exec(spec.user("nobody"), AMPLE)
        .await
        .unwrap()
        .stdout_text();
    assert!(nobody.starts_with("/usr/lib\n65534\n65534\n"), "{nobody}");
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let Pair { client, .. } = pair().await;
    for (spec, kind, word) in [
        (
            ExecSpec::new(["/no/such/program"]),
            FaultKind::NotFound,
            "/no/such/program",
        ),
        (
            ExecSpec::new(["true"]).cwd("/no/such/place"),
            FaultKind::NotFound,
            "true",
        ),
        (
            ExecSpec::new(["true"]).user("nemo"),
            FaultKind::NotFound,
            "nemo",
        ),
        (
            ExecSpec::new(["/etc/passwd"]),
            FaultKind::Denied,
            "/etc/passwd",
        ),
        (
            ExecSpec::new(Vec::<String>::new()),
            FaultKind::Invalid,
            "without a program",
        ),
        (ExecSpec::new(["a\0b"]), FaultKind::Invalid, "nul byte"),
    ] {
        let error = client.exec(spec, AMPLE).await.unwrap_err();
        assert_eq!(error.fault_kind(), Some(kind), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn more_input_and_output_than_any_window_passes_through() {
    let Pair { client, .. } = pair().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let output = client
        .exec(ExecSpec::new(["cat"]).stdin(bytes.clone()), AMPLE)
        .await
        .unwrap();
    assert!(output.success() && output.stdout == bytes);

    let spec = ExecSpec::new(["cat"])
        .stdin(bytes.clone())
        .output_limit(1000);
    let output = client.exec(spec, AMPLE).await.unwrap();
    assert!(output.success() && output.truncated && output.stdout == bytes[..1000]);

    // A program that does not read its input ends all the same.
    let output = client
        .exec(ExecSpec::new(["true"]).stdin(bytes), AMPLE)
        .await
        .unwrap();
    assert!(output.success());
}

#[tokio::test]
async fn the_last_words_of_a_short_program_are_not_lost() {
    let Pair { client, .. } = pair().await;
    for round in 0..50 {
        let output = client
            .exec(sh("printf out; printf err >&2"), AMPLE)
            .await
            .unwrap();
        assert_eq!(
            output.stdout_text() + &output.stderr_text(),
            "outerr",
            "round {round}"
        );
    }
}

#[tokio::test]
async fn a_deadline_kills_the_whole_family() {
    let Pair { client, .. } = pair().await;
    let begun = Instant::now();
    // One in the program's group, one in a group of its own as a shell with job control makes them.
    let script = "sleep 1000 & echo $!; set -m; sleep 1000 & echo $!; echo $$; wait";
    let output = client
        .exec(sh(script), Duration::from_millis(700))
        .await
        .unwrap();
    assert!(
        output.timed_out() && !output.result.left_behind,
        "{output:?}"
    );
    assert!(
        begun.elapsed() < Duration::from_millis(2500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(output.stdout_text().lines().count(), 3);
    for pid in output.stdout_text().lines() {
        assert!(!alive(pid), "{pid}");
    }
    assert!(
        output
            .ending()
            .starts_with("was killed at its deadline after 0.")
    );
}

#[tokio::test]
async fn what_a_program_leaves_running_ends_with_it() {
    let Pair { client, .. } = pair().await;
    let begun = Instant::now();
    let output = client
        .exec(sh("sleep 1000 & echo $!"), AMPLE)
        .await
        .unwrap();
    assert!(output.success() && begun.elapsed() < Duration::from_secs(5));
    gone(&output.stdout_text()).await;
}

#[tokio::test]
async fn a_program_is_cancelled_and_its_last_words_heard() {
    let Pair { client, .. } = pair().await;
    let mut session = client
        .start(sh("echo $$; exec sleep 1000"), AMPLE)
        .await
        .unwrap();
    let Chunk::Stdout(pid) = session.next().await.unwrap() else {
        panic!("no pid")
    };
    session.cancel().await.unwrap();
    let Chunk::Ended(result) = session.next().await.unwrap() else {
        panic!("no end")
    };
    assert_eq!(
        result.killed,
        Some(agent_protocol::message::KilledBecause::Cancelled)
    );
    gone(std::str::from_utf8(&pid).unwrap()).await;
}

#[tokio::test]
async fn a_dropped_session_and_a_dropped_connection_kill() {
    let Pair { client, agent } = pair().await;
    let mut pids = Vec::new();
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let script = "sleep 1000 & echo $!; exec sleep 1000";
        let mut session = client.start(sh(script), AMPLE).await.unwrap();
        let Chunk::Stdout(pid) = session.next().await.unwrap() else {
            panic!("no pid")
        };
        pids.push(String::from_utf8(pid).unwrap());
        sessions.push(session);
    }
    drop(sessions.pop());
    gone(&pids.pop().unwrap()).await;
    let other = pids.pop().unwrap();
    assert!(alive(&other));
    // A session keeps its connection; with the last of both it closes.
    drop(client);
    assert!(alive(&other));
    drop(sessions);
    agent.await.unwrap().unwrap();
    gone(&other).await;
}

#[tokio::test]
async fn a_flood_that_nobody_reads_holds_up_nobody() {
    let Pair { client, .. } = pair().await;
    let _flood = client.start(ExecSpec::new(["yes"]), AMPLE).await.unwrap();
    let deaf = client
        .start(ExecSpec::new(["sleep", "1000"]).interactive(), AMPLE)
        .await
        .unwrap();
    let input = deaf.input();
    let stuffing = tokio::spawn(async move { input.send(&vec![0; 4_000_000]).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!stuffing.is_finished());
    for _ in 0..20 {
        client.ping(Duration::from_secs(5)).await.unwrap();
    }
    assert!(
        client
            .exec(ExecSpec::new(["true"]), AMPLE)
            .await
            .unwrap()
            .success()
    );
    // Without a reader the flood still ends at its deadline.
    let begun = Instant::now();
    let mut late = client
        .start(ExecSpec::new(["yes"]), Duration::from_millis(300))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut bytes = 0;
    let result = loop {
        match late.next().await.unwrap() {
            Chunk::Stdout(more) => bytes += more.len(),
            Chunk::Stderr(_) => panic!("yes has nothing to complain about"),
            Chunk::Ended(result) => break result,
        }
    };
    assert!(result.timed_out() && bytes > 100_000 && begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn side_by_side_up_to_a_limit() {
    let Pair { client, .. } = pair().await;
    let mut sleepers = Vec::new();
    for _ in 0..64 {
        let spec = ExecSpec::new(["sleep", "1000"]);
        sleepers.push(client.start(spec, AMPLE).await.unwrap());
    }
    let error = client.ping(AMPLE).await.unwrap_err();
    assert_eq!(error.fault_kind(), Some(FaultKind::Overloaded), "{error}");
    drop(sleepers);
    // Its place is free once the agent has seen the cancels.
    let begun = Instant::now();
    while let Err(error) = client.ping(AMPLE).await {
        assert_eq!(error.fault_kind(), Some(FaultKind::Overloaded), "{error}");
        assert!(begun.elapsed() < AMPLE);
    }
}

#[tokio::test]
async fn a_terminal_is_one() {
    let Pair { client, .. } = pair().await;
    let script = "stty size; tty -s && echo yes; read line; stty size; echo got $line; exec cat";
    let mut session = client
        .start(sh(script).terminal(33, 111), AMPLE)
        .await
        .unwrap();
    let input = session.input();
    let (mut seen, mut said) = (String::new(), 0);
    let result = loop {
        match session.next().await.unwrap() {
            Chunk::Stdout(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            Chunk::Stderr(_) => panic!("a terminal has one output"),
            Chunk::Ended(result) => break result,
        }
        if said == 0 && seen.contains("yes") {
            input.resize(44, 122).await.unwrap();
            input.send(b"hello\n").await.unwrap();
            said = 1;
        }
        if said == 1 && seen.contains("got hello") {
            input.send(b"again\n").await.unwrap();
            said = 2;
        }
        // Once by the terminal's echo, once by cat, which so is known to run: a shell between two
        // programs may miss a signal.
        if said == 2 && seen.matches("again").count() == 2 {
            // Ctrl-C, which the terminal turns into SIGINT for whoever is in the foreground.
            input.send(b"\x03").await.unwrap();
            said = 3;
        }
    };
    assert!(seen.contains("33 111") && seen.contains("44 122"), "{seen}");
    assert_eq!((said, result.killed), (3, None), "{seen}");
    assert!(
        matches!(result.ended, Ended::Signalled { signal: 2, .. }),
        "{result:?}"
    );
}

#[tokio::test]
async fn the_transcript_tells_the_story() {
    let Pair { client, .. } = pair().await;
    client.ping(AMPLE).await.unwrap();
    client
        .exec(sh("echo one; echo two >&2; exit 7"), AMPLE)
        .await
        .unwrap();
    let missing = client
        .stat("/no/such\nfile", true, AMPLE)
        .await
        .unwrap_err();
    assert!(matches!(missing, AgentError::Fault { .. }));
    let text = client.transcript().to_string();
    assert!(
        text.contains("] exec /bin/sh -c echo one; echo two >&2; exit 7 -> exited with code 7")
    );
    assert!(
        text.contains("            | one\n            ! two\n"),
        "{text}"
    );
    assert!(
        text.contains(r"stat /no/such\\nfile -> not found: stat /no/such\nfile:"),
        "{text}"
    );
    let entries = client.transcript().entries();
    assert_eq!(entries.len(), 4);
    assert!(entries.iter().all(|entry| entry.outcome.is_some()));
}
