//! Templates for models whose file has none.

use crate::segments::ControlTokens;
use crate::template::{ChatTemplate, TemplateVocabulary};

/// A family of models that share a prompt format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    ChatMl,
    Llama2,
    Llama3,
    Gemma,
    Mistral,
    Phi3,
    Zephyr,
    Vicuna,
    Alpaca,
    Plain,
}

#[cfg(test)]
const FAMILIES: [Family; 10] = [
    Family::ChatMl,
    Family::Llama2,
    Family::Llama3,
    Family::Gemma,
    Family::Mistral,
    Family::Phi3,
    Family::Zephyr,
    Family::Vicuna,
    Family::Alpaca,
    Family::Plain,
];

/// A template for a model without one.
///
/// The vocabulary decides where its control tokens tell the family; then `hint`, the architecture or the model's name
/// in any case; a model that neither tells is a base model and gets the messages' text alone.
pub fn fallback_for(hint: &str, vocabulary: TemplateVocabulary) -> ChatTemplate {
    let family = by_tokens(&vocabulary.control_tokens).unwrap_or_else(|| by_name(hint));
    ChatTemplate::compile(source(family), vocabulary).expect("every built-in template parses; this is a bug")
}

fn by_tokens(tokens: &ControlTokens) -> Option<Family> {
    let telling = [
        (["<|im_start|>", "<|im_end|>"], Family::ChatMl),
        (["<|start_header_id|>", "<|eot_id|>"], Family::Llama3),
        (["<start_of_turn>", "<end_of_turn>"], Family::Gemma),
        (["[INST]", "[/INST]"], Family::Mistral),
        (["<|user|>", "<|end|>"], Family::Phi3),
        (["<|user|>", "<|assistant|>"], Family::Zephyr),
    ];
    telling.into_iter().find(|(marks, _)| marks.iter().all(|mark| tokens.contains(mark))).map(|(_, family)| family)
}

fn by_name(hint: &str) -> Family {
    let hint = hint.to_lowercase();
    let telling: [(&[&str], Family); 9] = [
        (&["vicuna", "wizardlm"], Family::Vicuna),
        (&["alpaca"], Family::Alpaca),
        (&["zephyr", "tinyllama", "stablelm"], Family::Zephyr),
        (&["llama-3", "llama3"], Family::Llama3),
        (&["llama-2", "llama2", "codellama"], Family::Llama2),
        (&["gemma"], Family::Gemma),
        (&["mistral", "mixtral"], Family::Mistral),
        (&["phi-3", "phi3", "phi-4", "phi4"], Family::Phi3),
        (&["qwen", "chatml", "smollm", "hermes", "dolphin", "yi-"], Family::ChatMl),
    ];
    let found = telling.into_iter().find(|(names, _)| names.iter().any(|name| hint.contains(name)));
    found.map_or(Family::Plain, |(_, family)| family)
}

fn source(family: Family) -> &'static str {
    match family {
        Family::ChatMl => {
            "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}{% endfor %}\
             {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        }
        Family::Llama2 => {
            "{% set ns = namespace(system='') %}{% for m in messages %}\
             {% if m.role == 'system' %}{% set ns.system = '<<SYS>>\n' ~ m.content ~ '\n<</SYS>>\n\n' %}\
             {% elif m.role == 'assistant' %}{{ ' ' ~ m.content ~ ' ' ~ (eos_token or '') }}\
             {% else %}{{ (bos_token or '') ~ '[INST] ' ~ ns.system ~ m.content ~ ' [/INST]' }}{% set ns.system = '' %}\
             {% endif %}{% endfor %}"
        }
        Family::Llama3 => {
            "{{ bos_token or '' }}{% for m in messages %}{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\n\n' }}\
             {{ m.content | trim }}{{ '<|eot_id|>' }}{% endfor %}\
             {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
        }
        Family::Gemma => {
            "{{ bos_token or '' }}{% set ns = namespace(system='') %}{% for m in messages %}\
             {% if m.role == 'system' %}{% set ns.system = m.content | trim ~ '\n\n' %}{% else %}\
             {{ '<start_of_turn>' ~ ('model' if m.role == 'assistant' else 'user') ~ '\n' ~ ns.system }}\
             {{ m.content | trim }}{{ '<end_of_turn>\n' }}{% set ns.system = '' %}{% endif %}{% endfor %}\
             {% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
        }
        Family::Mistral => {
            "{{ bos_token or '' }}{% set ns = namespace(system='') %}{% for m in messages %}\
             {% if m.role == 'system' %}{% set ns.system = m.content ~ '\n\n' %}\
             {% elif m.role == 'assistant' %}{{ ' ' ~ m.content ~ (eos_token or '') }}\
             {% else %}{{ '[INST] ' ~ ns.system ~ m.content ~ ' [/INST]' }}{% set ns.system = '' %}{% endif %}\
             {% endfor %}"
        }
        Family::Phi3 => {
            "{% for m in messages %}{{ '<|' ~ m.role ~ '|>\n' ~ m.content ~ '<|end|>\n' }}{% endfor %}\
             {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
        }
        Family::Zephyr => {
            "{% for m in messages %}{{ '<|' ~ m.role ~ '|>\n' ~ m.content ~ (eos_token or '') ~ '\n' }}{% endfor %}\
             {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
        }
        Family::Vicuna => {
            "{% for m in messages %}{% if m.role == 'system' %}{{ m.content ~ '\n\n' }}\
             {% elif m.role == 'assistant' %}{{ 'ASSISTANT: ' ~ m.content ~ (eos_token or '') ~ '\n' }}\
             {% else %}{{ 'USER: ' ~ m.content ~ '\n' }}{% endif %}{% endfor %}\
             {% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
        }
        Family::Alpaca => {
            "{% for m in messages %}{% if m.role == 'system' %}{{ m.content ~ '\n\n' }}\
             {% elif m.role == 'assistant' %}{{ '### Response:\n' ~ m.content ~ '\n\n' }}\
             {% else %}{{ '### Instruction:\n' ~ m.content ~ '\n\n' }}{% endif %}{% endfor %}\
             {% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
        }
        Family::Plain => {
            "{% for m in messages %}{{ m.content }}{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conversation, Message, Role, TemplateOptions};

    #[test]
    fn every_family_prints_the_conversation() {
        let messages = [(Role::System, "S1"), (Role::User, "U1"), (Role::Assistant, "A1"), (Role::User, "U2")];
        let messages = messages.map(|(role, text)| Message::text(role, text)).to_vec();
        let conversation = Conversation { messages, tools: Vec::new() };
        for family in FAMILIES {
            let template = ChatTemplate::compile(source(family), TemplateVocabulary::default()).expect("it parses");
            let text = template.render(&conversation, &TemplateOptions::default()).expect("it renders").text();
            let order: Vec<Option<usize>> = ["S1", "U1", "A1", "U2"].iter().map(|part| text.find(part)).collect();
            assert!(order.iter().all(Option::is_some), "{family:?}: {text}");
            assert!(order.is_sorted(), "{family:?}: {text}");
        }
    }

    #[test]
    fn the_vocabulary_decides_before_the_name() {
        let spellings = ["<|im_start|>", "<|im_end|>"].map(String::from);
        let tokens = ControlTokens::new(&spellings).expect("two spellings are few");
        assert_eq!(by_tokens(&tokens), Some(Family::ChatMl));
        assert_eq!(by_tokens(&ControlTokens::default()), None);
        for (hint, family) in [("gemma2", Family::Gemma), ("Vicuna-7B", Family::Vicuna), ("gpt2", Family::Plain)] {
            assert_eq!(by_name(hint), family, "{hint}");
        }
    }
}
