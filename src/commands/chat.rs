//! `ingle chat`: a conversation on the terminal, or one message from a pipe.

mod input;
mod talker;

use std::io::{self, IsTerminal, Read};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::StreamExt;
use ingle::prompt::{Message, Role};
use tokio::runtime::Runtime as Executor;

use crate::cli::ChatArgs;
use crate::output;
use input::{Editor, Entry};
use talker::{Part, Talker, Totals};

/// Longest message from a pipe, in bytes.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;

const HELP: &str = "\
/help          these lines
/clear         forget the conversation
/system TEXT   set the instructions for the model; without TEXT remove them
/exit          leave; Ctrl-D does too
A line that ends with \\ goes on in the next one; a block between two lines of \"\"\" may have many.
Ctrl-C stops an answer.
";

/// Talks until the person leaves, or answers the one message that a pipe brings.
pub(crate) fn run(args: ChatArgs) -> anyhow::Result<()> {
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let is_terminal = io::stdin().is_terminal();
    let message = if is_terminal { None } else { Some(read_message()?) };
    if is_terminal {
        eprintln!(
            "{}",
            args.endpoint.as_ref().map_or("loading the model …".to_owned(), |url| format!("talking to {url}"))
        );
    }
    let talker = executor.block_on(Talker::new(&args))?;
    let mut chat = Chat { executor, talker, system: args.system, messages: Vec::new() };
    match message {
        Some(message) => chat.answer_once(message),
        None => chat.converse(),
    }
}

fn read_message() -> anyhow::Result<String> {
    let mut text = String::new();
    let read = io::stdin().lock().take(MAX_MESSAGE_BYTES + 1).read_to_string(&mut text);
    read.context("the message on standard input cannot be read")?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => bail!("standard input is empty: pipe a message into `ingle chat`, or start it on a terminal"),
        _ if text.len() as u64 > MAX_MESSAGE_BYTES => bail!("the message is larger than 64 MiB"),
        message => Ok(message.to_owned()),
    }
}

/// How an answer ended.
enum Ending {
    Complete(Totals),
    Interrupted,
}

struct Chat {
    executor: Executor,
    talker: Talker,
    system: Option<String>,
    messages: Vec<Message>,
}

impl Chat {
    /// One message, one answer, nothing else on standard output.
    fn answer_once(&mut self, message: String) -> anyhow::Result<()> {
        self.messages.push(Message::text(Role::User, message));
        let messages = self.conversation();
        self.executor.block_on(async {
            let mut parts = self.talker.ask(messages).await?;
            while let Some(part) = parts.next().await {
                if let Part::Text(text) = part? {
                    output::print(&text)?;
                }
            }
            output::print("\n")
        })
    }

    fn converse(&mut self) -> anyhow::Result<()> {
        let mut editor = Editor::new()?;
        eprintln!("{} is ready; /help lists what else you can type", self.talker.name());
        loop {
            match editor.read()? {
                Entry::Message(message) => self.turn(message)?,
                Entry::Help => eprint!("{HELP}"),
                Entry::Clear => {
                    self.messages.clear();
                    eprintln!("the conversation is empty");
                }
                Entry::System(text) => {
                    eprintln!("instructions {}", if text.is_some() { "set" } else { "removed" });
                    self.system = text;
                }
                Entry::Unknown(word) => eprintln!("{word} is no command; /help lists them"),
                Entry::Nothing => {}
                Entry::Exit => return Ok(()),
            }
        }
    }

    /// Says something; what goes wrong is told, and the conversation goes on without it.
    fn turn(&mut self, message: String) -> anyhow::Result<()> {
        self.messages.push(Message::text(Role::User, message));
        let messages = self.conversation();
        let mut text = String::new();
        let outcome = self.executor.block_on(stream_answer(&mut self.talker, messages, &mut text));
        match outcome {
            Ok(ending) => {
                self.messages.push(Message::text(Role::Assistant, text));
                let line = match ending {
                    Ending::Complete(totals) => totals.to_string(),
                    Ending::Interrupted => "stopped".to_owned(),
                };
                eprintln!("{}", dimmed(&format!("[{line}]")));
                Ok(())
            }
            Err(error) if output::is_broken_pipe(&error) => Err(error),
            Err(error) => {
                self.messages.pop();
                eprintln!("\n{}", output::sentence(&error));
                Ok(())
            }
        }
    }

    fn conversation(&self) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::text(Role::System, text));
        system.chain(self.messages.iter().cloned()).collect()
    }
}

/// Prints an answer as it comes; dropping the stream at Ctrl-C cancels the request.
async fn stream_answer(talker: &mut Talker, messages: Vec<Message>, text: &mut String) -> anyhow::Result<Ending> {
    let begun = Instant::now();
    let mut first = None;
    let mut totals = None;
    let work = async {
        let mut parts = talker.ask(messages).await?;
        while let Some(part) = parts.next().await {
            first.get_or_insert_with(Instant::now);
            match part? {
                Part::Text(piece) => {
                    output::print(&piece)?;
                    text.push_str(&piece);
                }
                Part::Reasoning(piece) => output::print(&dimmed_on_stdout(&piece))?,
                Part::End(end) => totals = Some(end),
            }
        }
        anyhow::Ok(())
    };
    let outcome = tokio::select! {
        outcome = work => outcome.map(|()| true),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("Ctrl-C cannot be received").map(|()| false),
    };
    output::print("\n")?;
    if !outcome? {
        return Ok(Ending::Interrupted);
    }
    let elapsed = |from: Instant| from.elapsed();
    let measured = first.map_or((elapsed(begun), Duration::ZERO), |first| (first - begun, elapsed(first)));
    Ok(Ending::Complete(totals.unwrap_or_default().with_times(measured)))
}

fn dimmed(text: &str) -> String {
    if io::stderr().is_terminal() { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
}

fn dimmed_on_stdout(text: &str) -> String {
    if io::stdout().is_terminal() { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
}
