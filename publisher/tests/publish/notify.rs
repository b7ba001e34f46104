//! A message to a webhook that fails twice, and to one that always does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use libtest_mimic::Failed;

use super::Row;
use super::world::{World, block_on};

pub const TESTS: &[Row] = &[
    (
        "tried_again_until_it_is_heard",
        tried_again_until_it_is_heard,
    ),
    ("a_secret_address_is_not_told", a_secret_address_is_not_told),
];

/// Answers so many requests with 500, then one with 200; returns the body of the last.
fn server(failures: usize) -> Result<(String, JoinHandle<std::io::Result<String>>), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!(
        "http://{}/hooks/s3cret?token=s3cret",
        listener.local_addr()?
    );
    let thread = std::thread::spawn(move || {
        let mut body = String::new();
        for n in 0..=failures {
            let (mut stream, _) = listener.accept()?;
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut bytes = vec![0; length];
            reader.read_exact(&mut bytes)?;
            body = String::from_utf8_lossy(&bytes).into_owned();
            let status = if n < failures { "500 Broken" } else { "200 OK" };
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )?;
        }
        Ok(body)
    });
    Ok((url, thread))
}

fn tried_again_until_it_is_heard() -> Result<(), Failed> {
    let world = World::new()?;
    let (url, server) = server(2)?;
    block_on(publisher::notify(
        &url,
        "{\"text\":\"built\"}",
        &world.log(),
    ))?;
    let body = server.join().map_err(|_| "the server died")??;
    assert_eq!(body, "{\"text\":\"built\"}");
    let log = std::fs::read_to_string(world.log()).unwrap_or_default();
    assert!(!log.contains("s3cret"), "{log}");
    Ok(())
}

fn a_secret_address_is_not_told() -> Result<(), Failed> {
    let world = World::new()?;
    let wrong = "ftp://hooks.example/s3cret";
    let error = block_on(publisher::notify(wrong, "{}", &world.log())).expect_err("no address");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    // A server that refuses for good; the tries take 15 s of waiting.
    let (url, _server) = server(10)?;
    let error = block_on(publisher::notify(&url, "{}", &world.log())).expect_err("refused");
    let said = error.to_string();
    assert!(
        said.contains("127.0.0.1") && said.contains("500") && !said.contains("s3cret"),
        "{said}"
    );
    let log = std::fs::read_to_string(world.log()).unwrap_or_default();
    assert!(!log.contains("s3cret"), "{log}");
    Ok(())
}
