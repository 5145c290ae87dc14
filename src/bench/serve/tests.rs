//! A load against a server of a few lines, whose times are known.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use clap::Parser;

use super::run;
use crate::bench::report::Row;
use crate::cli::ServeArgs;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Answers each request with `n_tokens` pieces, `gap` apart, or with a refusal when `n_tokens` is 0.
fn server(n_tokens: usize, gap: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || drop(answer(stream.unwrap(), n_tokens, gap)));
        }
    });
    address
}

fn answer(stream: TcpStream, n_tokens: usize, gap: Duration) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut n_bytes = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            n_bytes = length.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; n_bytes])?;
    let head = "Content-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    if n_tokens == 0 {
        return write!(
            stream,
            "HTTP/1.1 503 Service Unavailable\r\n{head}{{\"error\":{{\"message\":\"full\",\"type\":\"x\"}}}}"
        );
    }
    write!(stream, "HTTP/1.1 200 OK\r\n{head}")?;
    for _ in 0..n_tokens {
        std::thread::sleep(gap);
        write!(stream, "data: {{\"choices\":[{{\"text\":\"a\"}}]}}\n\n")?;
    }
    let usage = format!("{{\"prompt_tokens\":7,\"completion_tokens\":{n_tokens}}}");
    write!(stream, "data: {{\"choices\":[],\"usage\":{usage}}}\n\ndata: [DONE]\n\n")
}

fn arguments(line: &str) -> ServeArgs {
    Arguments::parse_from(std::iter::once("x").chain(line.split_whitespace())).serve
}

fn median(row: &Row, name: &str) -> f64 {
    row.metric(name).unwrap_or_else(|| panic!("{name} is missing")).median
}

#[test]
fn times_and_tokens_are_those_of_the_server() {
    let url = server(5, Duration::from_millis(20));
    let report =
        run(&arguments(&format!("{url} --model m --scenario greedy --requests 8 --clients 4 --blocks 2 --slo gap=30")))
            .unwrap();
    assert_eq!(report.rows.len(), 1);
    let row = &report.rows[0];
    assert_eq!((median(row, "failed"), median(row, "prompt tokens")), (0.0, 56.0));
    let (first, gap, total) = (median(row, "ttft p50"), median(row, "gap p50"), median(row, "total p50"));
    assert!(
        (20.0..60.0).contains(&first) && (19.0..40.0).contains(&gap) && (100.0..200.0).contains(&total),
        "{first} {gap} {total}"
    );
    // Two rounds of four clients: 40 tokens in a little over 200 ms.
    assert!((100.0..200.0).contains(&median(row, "out")), "{}", median(row, "out"));
    assert!(median(row, "goodput") > 0.0);
    assert_eq!(row.curves.len(), 3);
}

#[test]
fn two_servers_are_compared_block_by_block() {
    let (slow, fast) = (server(4, Duration::from_millis(40)), server(4, Duration::from_millis(10)));
    let line =
        format!("{slow} --model m --vs {fast} --vs-model m --scenario greedy --requests 2 --clients 2 --blocks 3");
    let report = run(&arguments(&line)).unwrap();
    assert_eq!(report.rows.len(), 3);
    let ratio = report.rows[2].metric("gap p50").unwrap();
    assert!(ratio.low > 2.0 && ratio.high < 6.0, "{ratio:?}");
    assert!(report.notes.iter().any(|note| note.contains("prompt tokens agree")), "{:?}", report.notes);
}

#[test]
fn an_open_loop_keeps_its_rate_and_the_time_is_bounded() {
    let url = server(2, Duration::from_millis(1));
    let report =
        run(&arguments(&format!("{url} --model m --scenario greedy --rate 50 --requests 25 --blocks 1"))).unwrap();
    let rate = median(&report.rows[0], "requests");
    assert!((25.0..90.0).contains(&rate), "{rate}");
    let begun = std::time::Instant::now();
    let stopped =
        run(&arguments(&format!("{url} --model m --scenario greedy --rate 2 --requests 1000 --max-seconds 1")));
    assert!(stopped.is_err() && begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn refusals_are_told_before_anything_is_measured() {
    let url = server(0, Duration::ZERO);
    let error = run(&arguments(&format!("{url} --model m --scenario greedy"))).unwrap_err().to_string();
    assert!(error.contains("status 503: full"), "{error}");
    assert!(run(&arguments("http://127.0.0.1:1 --scenario greedy")).is_err());
    assert!(run(&arguments(&format!("{url} --model m --scenario absent"))).is_err());
}
