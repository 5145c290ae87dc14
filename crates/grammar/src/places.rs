//! Says where in a schema a keyword stands that cannot be enforced.

use serde_json::Value;

use crate::formats::{INNER, MAX_DEPTH, NAMED};

/// What llguidance writes before the keywords it does not know, as a JSON list.
const MARK: &str = "Unimplemented keys: ";

/// Most places that are listed for a keyword.
const MOST_PLACES: usize = 3;

/// `reason` with the place of each keyword it names, as JSON pointers into `schema`.
pub(crate) fn with_places(reason: &str, schema: &Value) -> String {
    let Some((before, behind)) = reason.split_once(MARK) else { return reason.to_owned() };
    let mut lists = serde_json::Deserializer::from_str(behind).into_iter::<Vec<String>>();
    let Some(Ok(keywords)) = lists.next() else { return reason.to_owned() };
    let rest = &behind[lists.byte_offset()..];
    let placed = keywords.iter().map(|keyword| {
        let mut places = Vec::new();
        find(schema, keyword, &mut String::new(), MAX_DEPTH, &mut places);
        let more = if places.len() > MOST_PLACES { " and elsewhere" } else { "" };
        places.truncate(MOST_PLACES);
        match places.is_empty() {
            true => format!("`{keyword}`"),
            false => format!("`{keyword}` at {}{more}", places.join(", ")),
        }
    });
    let placed: Vec<String> = placed.collect();
    format!("{before}{}{rest}", placed.join(", "))
}

/// Places of schemas that have `keyword`; stops behind the first few.
fn find(schema: &Value, keyword: &str, place: &mut String, depth: usize, places: &mut Vec<String>) {
    let Some(object) = schema.as_object().filter(|_| depth > 0 && places.len() <= MOST_PLACES) else { return };
    if object.contains_key(keyword) {
        places.push(if place.is_empty() { "its top".to_owned() } else { place.clone() });
    }
    for (key, value) in object {
        let len = place.len();
        place.push('/');
        place.push_str(key);
        match value {
            Value::Array(schemas) if INNER.contains(&key.as_str()) => {
                schemas.iter().enumerate().for_each(|(idx, one)| {
                    below(one, keyword, place, &idx.to_string(), depth, places);
                })
            }
            Value::Object(schemas) if NAMED.contains(&key.as_str()) => schemas.iter().for_each(|(name, one)| {
                below(one, keyword, place, &name.replace('~', "~0").replace('/', "~1"), depth, places);
            }),
            one if INNER.contains(&key.as_str()) => find(one, keyword, place, depth - 1, places),
            _ => {}
        }
        place.truncate(len);
    }
}

fn below(schema: &Value, keyword: &str, place: &mut String, step: &str, depth: usize, places: &mut Vec<String>) {
    let len = place.len();
    place.push('/');
    place.push_str(step);
    find(schema, keyword, place, depth - 1, places);
    place.truncate(len);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keywords_are_found_where_schemas_are() {
        let schema = json!({
            "properties": {"a/b": {"items": {"uniqueItems": true}}, "uniqueItems": {"type": "string"}},
            "allOf": [{}, {"not": {}}],
        });
        let told = with_places("x: Unimplemented keys: [\"not\", \"uniqueItems\", \"odd\"]", &schema);
        assert_eq!(told, "x: `not` at /allOf/1, `uniqueItems` at /properties/a~1b/items, `odd`");
        assert_eq!(with_places("other", &schema), "other");
        let many = json!({"allOf": vec![json!({"not": {}}); 9]});
        assert!(with_places("Unimplemented keys: [\"not\"]", &many).ends_with("/allOf/2 and elsewhere"));
    }
}
