//! Looking into a plug-in: who may have put it there, what it was built from, and what it says of this processor.

use std::ffi::{CStr, CString, c_int, c_void};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::select::{Candidate, Probe};

/// What the names of all stamps begin with.
const STAMP_PREFIX: &[u8] = b"ingle_ggml_";
/// The stamp that plug-ins of this program carry: a symbol with the version of llama-cpp-sys-2 (see `build.rs`).
pub(super) const STAMP: &str = concat!("ingle_ggml_", env!("INGLE_GGML_STAMP"));

/// The plug-ins of a folder by name.
///
/// # Errors
/// When the folder is missing, or somebody else could put something into it.
pub(super) fn candidates(folder: &Path) -> Result<Vec<Candidate>, String> {
    if !folder.is_absolute() {
        // It would depend on the current folder, which anybody may have filled.
        return Err("it is no absolute path: name the folder from / on".to_owned());
    }
    is_trusted(folder)?;
    let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<Candidate> = names.filter_map(|name| Candidate::new(folder, &name)).collect();
    found.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(found)
}

/// Code is loaded from there: it has to belong to this user or to root, and nobody else may write it, but root's group.
fn is_trusted(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    // SAFETY: has no preconditions.
    let user = unsafe { libc::geteuid() };
    if metadata.uid() != 0 && metadata.uid() != user {
        return Err(format!(
            "it belongs to user {}; it must belong to root or to the user that runs it",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err("everybody may write it: take that right away (chmod o-w)".to_owned());
    }
    if metadata.mode() & 0o020 != 0 && metadata.gid() != 0 {
        return Err(format!("group {} may write it: take that right away (chmod g-w)", metadata.gid()));
    }
    Ok(())
}

/// The dynamic loader of this machine.
pub(super) struct Dynamic;

impl Probe for Dynamic {
    fn score(&self, candidate: &Candidate) -> Result<Option<u32>, String> {
        is_trusted(&candidate.path)?;
        let library = Library::open(&candidate.path)?;
        if !library.has(STAMP) {
            return Err(wrong_build(&candidate.path));
        }
        Ok(library.score())
    }
}

/// An open library; closed when dropped.
struct Library(*mut c_void);

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: `dlopen` gave this handle, and nothing of the library is in use any more.
        unsafe { libc::dlclose(self.0) };
    }
}

impl Library {
    fn open(path: &Path) -> Result<Self, String> {
        Self::open_with(path, 0)
    }

    fn open_with(path: &Path, more: c_int) -> Result<Self, String> {
        let path =
            CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| "its path holds a zero byte".to_owned())?;
        // SAFETY: the string ends in zero. Initialisers of the library run: it is one of ggml's, by its owner's word.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL | more) };
        if handle.is_null() { Err(last_error()) } else { Ok(Self(handle)) }
    }

    /// The address of a symbol; zero is the address of an absolute one.
    fn find(&self, name: &str) -> Option<*mut c_void> {
        let name = CString::new(name).ok()?;
        // SAFETY: the handle is open, the name ends in zero; the first call forgets older errors.
        unsafe {
            libc::dlerror();
            let address = libc::dlsym(self.0, name.as_ptr());
            libc::dlerror().is_null().then_some(address)
        }
    }

    fn has(&self, symbol: &str) -> bool {
        self.find(symbol).is_some()
    }

    /// What the library says of this processor.
    fn score(&self) -> Option<u32> {
        let address = self.find("ggml_backend_score").filter(|address| !address.is_null())?;
        // SAFETY: ggml declares this function as `int ggml_backend_score(void)`, and the stamp says that this is ggml.
        let score = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(address)() };
        Some(u32::try_from(score).unwrap_or(0))
    }
}

/// Hands this program's operations to a plug-in of the processor that ggml has loaded; false where it takes none, as one
/// from elsewhere, or one of another version of Ingle.
#[cfg(feature = "plugins")]
pub(super) fn lead_operations(path: &Path) -> Result<bool, String> {
    use crate::operations::{TAKE, Take, lead_to};
    // The very file that ggml has open, whatever lies at this path by now.
    let library = Library::open_with(path, libc::RTLD_NOLOAD)?;
    let Some(address) = library.find(TAKE).filter(|address| !address.is_null()) else { return Ok(false) };
    // SAFETY: the function of this name has this type (`operations.cpp`); the plug-in was loaded just now and computes
    // nothing yet. ggml keeps it open, so the functions stay in place when this handle is closed.
    unsafe { lead_to(std::mem::transmute::<*mut c_void, Take>(address)) };
    Ok(true)
}

fn last_error() -> String {
    // SAFETY: the text is valid until the next call of the loader on this thread.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader gave no reason".to_owned();
    }
    // SAFETY: as above, and it ends in zero.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Names what the file was built from, as far as it tells.
fn wrong_build(path: &Path) -> String {
    let needed = version(env!("INGLE_GGML_STAMP"));
    match find_stamp(path) {
        Some(found) => format!(
            "it was built from llama-cpp-sys-2 {}, and this program from {needed}: build it again with \
             scripts/plugin.sh of this version",
            version(&found)
        ),
        None => format!(
            "it does not say what it was built from; this program takes plug-ins of llama-cpp-sys-2 {needed}, which \
             scripts/plugin.sh builds"
        ),
    }
}

fn version(stamp: &str) -> String {
    stamp.replace('_', ".")
}

/// The rest of the first stamp in a file, read piece by piece: plug-ins can have hundreds of megabytes.
fn find_stamp(path: &Path) -> Option<String> {
    const PIECE: usize = 1 << 20;
    const LONGEST: usize = 64;
    let mut file = File::open(path).ok()?;
    let mut window = Vec::with_capacity(PIECE + LONGEST);
    loop {
        let n_read = file.by_ref().take(PIECE as u64).read_to_end(&mut window).ok()?;
        if let Some(rest) = stamp_in(&window) {
            return Some(rest);
        }
        if n_read == 0 {
            return None;
        }
        window.drain(..window.len().saturating_sub(LONGEST));
    }
}

fn stamp_in(bytes: &[u8]) -> Option<String> {
    let at = bytes.windows(STAMP_PREFIX.len()).position(|window| window == STAMP_PREFIX)? + STAMP_PREFIX.len();
    let rest = &bytes[at..];
    let end = rest.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'_')?;
    std::str::from_utf8(&rest[..end]).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}
