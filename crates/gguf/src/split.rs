//! Names of split models: `name-00001-of-00003.gguf`.

/// A file name of one shard, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardName {
    /// Everything before the first number, directories included.
    pub prefix: String,
    /// From 0.
    pub index: u32,
    /// How many shards there are, 1..=65535.
    pub count: u32,
}

impl ShardName {
    /// Takes a file name or path apart; `None` if it is not the name of a shard.
    pub fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let (number, count) = (parse_number(number)?, parse_number(count)?);
        let is_shard = !prefix.is_empty() && (1..=count).contains(&number) && count <= u32::from(u16::MAX);
        is_shard.then(|| Self { prefix: prefix.into(), index: number - 1, count })
    }

    /// The name of shard `index` of the same model.
    pub fn sibling(&self, index: u32) -> String {
        format!("{}-{:05}-of-{:05}.gguf", self.prefix, index + 1, self.count)
    }

    /// The names of all shards in order, this one included.
    pub fn all(&self) -> Vec<String> {
        (0..self.count).map(|index| self.sibling(index)).collect()
    }
}

/// The names of all shards that belong to `name`, in order; just `name` if it is not a shard.
pub fn sibling_names(name: &str) -> Vec<String> {
    ShardName::parse(name).map_or_else(|| vec![name.into()], |shard| shard.all())
}

/// Five digits, as llama.cpp writes them.
fn parse_number(text: &str) -> Option<u32> {
    let is_number = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}
