//! Four streams run when a long prompt arrives: what do they notice, and how long does it wait?

use std::time::{Duration, Instant};

use crate::common::{Random, Target, gaps_ms, ms, quantile};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Tokens of the long prompt, about.
    #[arg(long, default_value_t = 2000)]
    prompt: usize,
    /// Streams that run beside it.
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// How often the whole is repeated.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

pub async fn run(target: &Target, options: Options) -> anyhow::Result<()> {
    target.warm_up().await?;
    let mut random = Random(Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()));
    for round in 1..=options.rounds {
        let alone = first_token(target, &random.words(options.prompt)).await?;
        let streams: Vec<_> = (0..options.streams)
            .map(|_| {
                let (target, text) = (target.clone(), random.words(32));
                tokio::spawn(async move {
                    let request = target.request(None, &text, 900)?;
                    anyhow::Ok(target.stream(request, usize::MAX).await?)
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(6)).await;
        let arrived = Instant::now();
        let beside = first_token(target, &random.words(options.prompt)).await?;
        let served = arrived + beside;
        let (mut quiet, mut disturbed) = (Vec::new(), Vec::new());
        for stream in streams {
            let arrivals = stream.await??.arrivals;
            // Gaps that end after the arrival of the long prompt and begin before its first token.
            let of = |from: Option<Instant>, to: Instant| {
                let inside = |pair: &[Instant]| from.is_none_or(|from| pair[1] > from) && pair[0] < to;
                arrivals.windows(2).filter(|pair| inside(pair)).flat_map(gaps_ms).collect::<Vec<_>>()
            };
            let settled = arrived - Duration::from_secs(4);
            quiet.extend(arrivals.windows(2).filter(|pair| pair[0] > settled && pair[1] < arrived).flat_map(gaps_ms));
            disturbed.extend(of(Some(arrived), served));
        }
        let calm = quantile(&mut quiet, 0.5);
        println!(
            "round {round}: undisturbed gap {calm:.1} ms ({} gaps); disturbed ({} gaps) median {:.2} x, longest {:.2} x; \
             time to first token {:.0} ms alone, {:.0} ms beside = {:.2} x",
            quiet.len(),
            disturbed.len(),
            quantile(&mut disturbed, 0.5) / calm,
            quantile(&mut disturbed, 1.0) / calm,
            ms(alone),
            ms(beside),
            beside.as_secs_f64() / alone.as_secs_f64(),
        );
    }
    Ok(())
}

async fn first_token(target: &Target, text: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let answer = target.stream(target.request(None, text, 4)?, usize::MAX).await?;
    println!("  prompt of {} tokens", answer.usage.as_ref().map_or(0, |usage| usage.prompt_tokens));
    Ok(answer.arrivals.first().map_or(Duration::MAX, |first| *first - begun))
}
