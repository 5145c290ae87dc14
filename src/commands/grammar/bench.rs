//! `ingle grammar bench`: what masks cost with a model's vocabulary.

use std::sync::Arc;
use std::time::Instant;

use ingle::{Allowed, Compiled, GrammarEnvironment, Setup, TokenId};

use super::{kind_of, read, source};
use crate::cli::GrammarBenchArgs;
use crate::commands::locate::{INSTALL, locate, open};
use crate::commands::progress::Downloads;
use crate::output;
use ingle::Strictness;

/// A few grammars of everyday shapes.
const SAMPLES: [(&str, &str); 4] = [
    ("list.gbnf", "root ::= item+\nitem ::= \"- \" [^\\r\\n]+ \"\\n\"\n"),
    (
        "json.gbnf",
        r#"root ::= object
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}"
array ::= "[" ws (value ("," ws value)*)? "]"
string ::= "\"" ([^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\""
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]+)? ([eE] [-+]? [0-9]+)?
ws ::= [ \t\n]{0,4}
"#,
    ),
    ("date.regex", "[0-9]{4}-[01][0-9]-[0-3][0-9]"),
    (
        "person.json",
        r#"{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0}},
            "required":["name","age"],"additionalProperties":false}"#,
    ),
];

/// What was measured of one grammar, in microseconds.
#[derive(Default)]
struct Costs {
    compile: f64,
    /// Masks that took longer than a look into a table, and the others.
    all: Vec<f64>,
}

/// Prints a table.
pub(super) fn run(args: GrammarBenchArgs) -> anyhow::Result<()> {
    let downloads = Downloads::default();
    let name = locate(&open(&args.folder)?, &args.model, INSTALL, &downloads)?;
    let setup = Setup {
        config_file: args.folder.models_config_file.clone(),
        defaults: args.load.defaults(),
        ..Setup::new(&args.folder.models_path)
    };
    let runtime = setup.runtime()?;
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let lease = executor.block_on(runtime.lease(Some(&name), ingle::catalog::Usecase::Completion))?;
    let tokenizer = Arc::clone(lease.text()?.tokenizer());
    let n_vocab = tokenizer.n_vocab();
    let begun = Instant::now();
    let environment = Arc::new(GrammarEnvironment::new(tokenizer)?);
    output::print(&format!("{n_vocab} tokens, prepared in {:.0} ms\n", begun.elapsed().as_secs_f64() * 1e3))?;
    let mut grammars: Vec<(String, String)> = Vec::new();
    for path in &args.files {
        grammars.push((path.display().to_string(), read(path)?));
    }
    if grammars.is_empty() {
        grammars.extend(SAMPLES.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
    let mut rows = Vec::new();
    for (name, text) in grammars {
        let begun = Instant::now();
        let compiled = Compiled::new(&environment, &source(kind_of(name.as_ref())?, &text, Strictness::Lenient)?)?;
        let mut costs = Costs { compile: micros(begun), ..Costs::default() };
        for seed in 0..args.outputs {
            walk(&compiled, seed as u64, args.tokens, &mut costs)?;
        }
        rows.push(costs.row(name));
    }
    output::print(&output::table(&["GRAMMAR", "COMPILE µs", "MASKS", "p50 µs", "p90", "p99", "MAX"], &rows))
}

impl Costs {
    fn row(mut self, name: String) -> Vec<String> {
        self.all.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let last = self.all.len().saturating_sub(1);
            let value = self.all.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN);
            format!("{value:.1}")
        };
        let counts = [format!("{:.0}", self.compile), self.all.len().to_string()];
        let quantiles = [0.5, 0.9, 0.99, 1.0].map(quantile);
        [name].into_iter().chain(counts).chain(quantiles).collect()
    }
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// One output of random tokens.
fn walk(compiled: &Compiled, seed: u64, most: usize, costs: &mut Costs) -> anyhow::Result<()> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut constraint = compiled.start();
    for _ in 0..most {
        let begun = Instant::now();
        let allowed = constraint.allowed()?;
        costs.all.push(micros(begun));
        let Allowed::These(mask) = allowed else { return Ok(()) };
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let Some(token) = pick(&mask, random) else { return Ok(()) };
        // An end of the answer is no part of it.
        if constraint.accept(token).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// One token of a set, at random.
fn pick(mask: &[u32], random: u64) -> Option<TokenId> {
    let n_set: u64 = mask.iter().map(|word| u64::from(word.count_ones())).sum();
    let mut nth = random.checked_rem(n_set)?;
    for (idx, &word) in mask.iter().enumerate() {
        let here = u64::from(word.count_ones());
        if nth < here {
            let bit = (0..32).filter(|bit| word >> bit & 1 == 1).nth(nth as usize)?;
            return Some(idx as TokenId * 32 + bit);
        }
        nth -= here;
    }
    None
}
