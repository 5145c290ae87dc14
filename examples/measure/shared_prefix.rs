//! Clients with one system prompt arrive together: how many prompt tokens are computed in all?

use crate::common::{Random, Target};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Clients.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Tokens of the shared system prompt, about.
    #[arg(long, default_value_t = 1500)]
    shared: usize,
    /// Tokens of each client's own message, about.
    #[arg(long, default_value_t = 32)]
    own: usize,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 128)]
    answer: usize,
}

pub async fn run(target: &Target, options: Options) -> anyhow::Result<()> {
    target.warm_up().await?;
    let mut random = Random(u64::from(std::process::id()));
    let system = random.words(options.shared);
    let begun = std::time::Instant::now();
    let answers: Vec<_> = (0..options.clients)
        .map(|_| {
            let (target, system, own) = (target.clone(), system.clone(), random.words(options.own));
            tokio::spawn(async move {
                let request = target.request(Some(&system), &own, options.answer)?;
                anyhow::Ok(target.stream(request, usize::MAX).await?)
            })
        })
        .collect();
    let (mut prompt_tokens, mut cached_tokens, mut answer_tokens) = (Vec::new(), 0, 0);
    for answer in answers {
        let usage = answer.await??.usage.unwrap_or_default();
        prompt_tokens.push(usage.prompt_tokens);
        cached_tokens += usage.prompt_tokens_details.map_or(0, |details| details.cached_tokens);
        answer_tokens += usage.completion_tokens;
    }
    let computed = prompt_tokens.iter().sum::<u64>() - cached_tokens;
    println!("prompts of {prompt_tokens:?} tokens; computed in all: {computed}");
    println!("{:.1} answer tokens/s over all", answer_tokens as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}
