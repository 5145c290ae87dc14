//! Files: free space, locks, hashes, and the step that makes a file appear at once and for good.

use crate::CatalogError;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Tells how much room a disk has.
pub trait SpaceProbe: std::fmt::Debug + Send + Sync {
    /// Bytes that this user may still write below `folder`, which exists.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// Asks the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskSpace;

impl SpaceProbe for DiskSpace {
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        fs4::available_space(folder)
    }
}

/// Refuses when `needed_bytes` do not fit beside `target`.
pub(super) fn check_space(probe: &dyn SpaceProbe, target: &Path, needed_bytes: u64) -> Result<(), CatalogError> {
    let folder = target.parent().unwrap_or(target);
    let free_bytes = probe.free_bytes(folder).map_err(CatalogError::io("ask for the free space of", folder))?;
    if needed_bytes > free_bytes {
        return Err(CatalogError::DiskFull { path: target.to_owned(), needed_bytes, free_bytes });
    }
    Ok(())
}

/// The path with one more ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Length of a file; 0 when there is none.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Takes the lock of `target`, waiting for another process. It ends with the value, or with the process.
pub(super) fn lock(target: &Path, on_wait: impl FnOnce()) -> Result<File, CatalogError> {
    let path = beside(target, "lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(CatalogError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(fs::TryLockError::WouldBlock) => on_wait(),
        Err(fs::TryLockError::Error(source)) => return Err(CatalogError::io("lock", &path)(source)),
    }
    file.lock().map_err(CatalogError::io("lock", &path))?;
    Ok(file)
}

/// Gives complete bytes their final name: flushed, renamed, and the folder flushed.
pub(super) fn publish(arrived: &Path, target: &Path) -> Result<(), CatalogError> {
    let flush = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    flush(arrived).map_err(CatalogError::io("flush", arrived))?;
    fs::rename(arrived, target).map_err(CatalogError::io("rename", arrived))?;
    let folder = target.parent().unwrap_or(target);
    flush(folder).map_err(CatalogError::io("flush", folder))
}

/// Makes `link` the same file as `original`, or a copy where the disk is another one.
pub(super) fn link_or_copy(
    original: &Path,
    link: &Path,
    check_space: impl FnOnce(u64) -> Result<(), CatalogError>,
) -> Result<(), CatalogError> {
    let original = fs::canonicalize(original).map_err(CatalogError::io("find", original))?;
    match fs::remove_file(link) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(CatalogError::io("remove", link)(error)),
    }
    if fs::hard_link(&original, link).is_ok() {
        return Ok(());
    }
    check_space(length(&original))?;
    fs::copy(&original, link).map_err(CatalogError::io("copy", &original))?;
    Ok(())
}

/// Lower-case hex of a file's sha256.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String, CatalogError> {
    let mut file = File::open(path).map_err(CatalogError::io("open", path))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).map_err(CatalogError::io("read", path))? {
            0 => return Ok(hex(&hasher.finalize())),
            n_bytes => hasher.update(&block[..n_bytes]),
        }
    }
}

/// Lower-case hex of a text's sha256.
pub(super) fn sha256_of_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
