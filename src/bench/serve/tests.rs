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

/// Answers each completion with `n_tokens` pieces, `gap` apart. Chats are refused.
fn server(n_tokens: usize, gap: Duration) -> String {
    failing_server(usize::MAX, n_tokens, gap)
}

/// The same, but requests behind the first `n_good` are refused.
fn failing_server(n_good: usize, n_tokens: usize, gap: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (idx, stream) in listener.incoming().enumerate() {
            let refusal = (idx >= n_good).then_some(idx);
            std::thread::spawn(move || drop(answer(stream.unwrap(), refusal, n_tokens, gap)));
        }
    });
    address
}

fn answer(stream: TcpStream, mut refusal: Option<usize>, n_tokens: usize, gap: Duration) -> std::io::Result<()> {
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
        if line.starts_with("POST /v1/chat") {
            refusal = Some(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; n_bytes])?;
    let head = "Content-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    if let Some(number) = refusal {
        let error = format!("{{\"message\":\"full, {number} wait\",\"type\":\"x\",\"code\":\"overloaded\"}}");
        return write!(stream, "HTTP/1.1 503 Service Unavailable\r\n{head}{{\"error\":{error}}}");
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
fn a_server_that_hangs_does_not_hold_up_the_end() {
    let (hangs, works) = (server(2, Duration::from_secs(60)), server(2, Duration::ZERO));
    // The second one answers at once, but the next request is due in a minute or two.
    for line in [format!("{hangs} --clients 2"), format!("{works} --rate 0.01")] {
        let begun = std::time::Instant::now();
        let line = format!("{line} --model m --scenario greedy --requests 4 --max-seconds 1");
        let error = run(&arguments(&line)).unwrap_err().to_string();
        assert!(error.contains("before the end") && begun.elapsed() < Duration::from_secs(4), "{error}");
    }
}

#[test]
fn an_error_keeps_the_rows_that_are_finished() {
    let url = server(2, Duration::from_millis(1));
    let line = format!("{url} --model m --scenario greedy,chat,single --requests 2 --blocks 1");
    let report = run(&arguments(&line)).unwrap();
    let scenarios: Vec<&str> = report.rows.iter().filter_map(|row| row.case["scenario"].as_str()).collect();
    assert_eq!((scenarios, report.is_complete), (vec!["greedy", "single"], false));
    let note = report.notes.iter().find(|note| note.starts_with("chat was not measured")).unwrap();
    assert!(note.contains("status 503 overloaded: full"), "{note}");
    assert!(report.failure.is_some());
}

#[test]
fn failures_of_a_kind_are_summed_over_blocks() {
    // The first request is the one that is not measured.
    let url = failing_server(1, 2, Duration::from_millis(1));
    let line = format!("{url} --model m --scenario greedy --requests 3 --clients 1 --blocks 2");
    let report = run(&arguments(&line)).unwrap();
    assert_eq!(median(&report.rows[0], "failed"), 3.0);
    let notes: Vec<&String> = report.notes.iter().filter(|note| note.contains("failed")).collect();
    assert!(notes.len() == 1 && notes[0].contains("6 requests failed: status 503 overloaded, such as"), "{notes:?}");
}

#[test]
fn refusals_are_told_before_anything_is_measured() {
    let url = failing_server(0, 1, Duration::ZERO);
    let error = run(&arguments(&format!("{url} --model m --scenario greedy"))).unwrap_err().to_string();
    assert!(error.contains("status 503 overloaded: full"), "{error}");
    assert!(run(&arguments("http://127.0.0.1:1 --scenario greedy")).is_err());
    assert!(run(&arguments(&format!("{url} --model m --scenario absent"))).is_err());
}
