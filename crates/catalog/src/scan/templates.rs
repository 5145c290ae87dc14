//! Templates that stand in files of their own: `<value>.tmpl` for a value, `<model file>.tmpl` without being named.

use std::io::Read;
use std::path::Path;

use crate::config::TemplateConfig;
use crate::names;

/// The largest template file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Puts the texts of template files in place of their names.
pub(super) fn read_files(template: &mut TemplateConfig, model: Option<&str>, folder: &Path) -> Result<(), String> {
    let keys = [
        &mut template.chat,
        &mut template.chat_message,
        &mut template.completion,
        &mut template.edit,
        &mut template.function,
    ];
    for value in keys.into_iter().flatten() {
        if let Some(text) = read(folder, value)? {
            *value = text;
        }
    }
    let has_own = template.chat.is_some() || template.chat_message.is_some() || template.completion.is_some();
    if let Some(model) = model.filter(|_| !has_own && template.use_tokenizer_template != Some(true)) {
        template.chat = read(folder, model)?;
        template.completion.clone_from(&template.chat);
    }
    Ok(())
}

/// The text of `name.tmpl`, where there is such a file.
fn read(folder: &Path, name: &str) -> Result<Option<String>, String> {
    // Most values are templates themselves: no file is looked for under those.
    if name.contains('\n') || name.contains("{{") || names::check("template", name).is_err() {
        return Ok(None);
    }
    let path = folder.join(format!("{name}.tmpl"));
    let Ok(file) = std::fs::File::open(&path) else { return Ok(None) };
    let mut text = String::new();
    match file.take(MAX_BYTES + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 <= MAX_BYTES => Ok(Some(text)),
        Ok(_) => Err(format!("{} is larger than 1 MiB", path.display())),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}
