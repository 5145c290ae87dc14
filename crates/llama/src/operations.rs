//! Operations of ggml's graphs that are computed here instead of by ggml, because it is slow at them on processors:
//! products with weights in blocks of 4, 5 and 8 bits, and attention over a cache that several sequences share.
//!
//! ggml asks before each operation of a graph (`operations.cpp`), on each of its compute threads. Whatever is not exactly
//! of the expected form is left to ggml. The processor code of ggml is part of the program or a plug-in of its own; either
//! way it is told once where the functions of this module are.

mod attention;

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use ingle_kernels::{AttentionScratch, BLOCK, Columns, Form, Product, Rows, STEP, Tile, column_bytes};

use crate::ffi::sys;

/// Rows of weights that a thread takes at once.
const CHUNK_ROWS: usize = 32;

static IS_ON: AtomicBool = AtomicBool::new(true);

/// Switches the operations of this module off, or on again, for all models of the process. Takes effect with the next
/// step: no step may run meanwhile.
pub fn use_own_operations(is_on: bool) {
    IS_ON.store(is_on, Ordering::Relaxed);
}

/// `ggml_compute_params` of ggml-cpu-impl.h.
#[repr(C)]
pub(crate) struct ComputeParams {
    thread_idx: c_int,
    n_threads: c_int,
    work_bytes: usize,
    /// Shared by all threads.
    work: *mut c_void,
    pool: *mut sys::ggml_threadpool,
    wants_reference: bool,
}

/// Functions of ggml for its compute threads, which lie where its processor code is.
#[repr(C)]
pub(crate) struct PoolFunctions {
    barrier: unsafe extern "C" fn(pool: *mut sys::ggml_threadpool),
    set_chunk: unsafe extern "C" fn(pool: *mut sys::ggml_threadpool, value: c_int),
    add_chunk: unsafe extern "C" fn(pool: *mut sys::ggml_threadpool, value: c_int) -> c_int,
}

pub(crate) type Compute =
    unsafe extern "C" fn(*const PoolFunctions, *const ComputeParams, *mut sys::ggml_tensor) -> bool;
pub(crate) type WorkBytes = unsafe extern "C" fn(*const sys::ggml_tensor) -> usize;

/// What takes the functions of this module; its name holds the number of the interface (see `operations.cpp`).
pub(crate) type Take = unsafe extern "C" fn(Compute, WorkBytes);
/// Its name.
#[cfg(feature = "plugins")]
pub(crate) const TAKE: &str = "ingle_take_operations_1";

#[cfg(not(feature = "plugins"))]
unsafe extern "C" {
    fn ingle_take_operations_1(compute: Compute, work_bytes: WorkBytes);
}

/// Tells the processor code that is part of this program.
#[cfg(not(feature = "plugins"))]
pub(crate) fn lead() {
    // SAFETY: no graph has been computed yet.
    unsafe { lead_to(ingle_take_operations_1) };
}

/// Tells a processor code where the functions of this module are.
///
/// # Safety
/// `take` is `ingle_take_operations_1` of `operations.cpp`, and nothing computes there yet.
pub(crate) unsafe fn lead_to(take: Take) {
    // SAFETY: handed on from the caller.
    unsafe { take(compute, work_bytes) };
}

/// Buffers of a compute thread.
#[derive(Default)]
struct Scratch {
    attention: AttentionScratch,
    tile: Tile,
    column: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Computes an operation, or says that ggml has to: the same answer on all threads.
///
/// # Safety
/// Called by ggml's compute threads, with the parameters of the thread and a node of the graph whose sources are
/// computed. All threads call it for each node, and none goes on to the next one before all have returned.
unsafe extern "C" fn compute(
    pool: *const PoolFunctions,
    params: *const ComputeParams,
    node: *mut sys::ggml_tensor,
) -> bool {
    // SAFETY: all point to living structs, which nobody changes meanwhile.
    let (pool, params, node) = unsafe { (&*pool, &*params, &*node) };
    if params.wants_reference || !IS_ON.load(Ordering::Relaxed) {
        return false;
    }
    // SAFETY: handed on from the caller.
    unsafe {
        match node.op {
            sys::GGML_OP_MUL_MAT => multiply(pool, params, node),
            sys::GGML_OP_FLASH_ATTN_EXT => attention::attend(pool, params, node),
            _ => false,
        }
    }
}

/// A source of a node.
unsafe fn source(node: &sys::ggml_tensor, idx: usize) -> Option<&sys::ggml_tensor> {
    // SAFETY: sources are null or living tensors.
    unsafe { node.src[idx].as_ref() }
}

fn sizes<const N: usize>(tensor: &sys::ggml_tensor) -> Option<[usize; N]> {
    let mut sizes = [0; N];
    for (size, &n) in sizes.iter_mut().zip(&tensor.ne) {
        *size = usize::try_from(n).ok().filter(|&n| n > 0)?;
    }
    Some(sizes)
}

/// A matrix of floats whose rows are without gaps inside.
fn is_float_matrix(tensor: &sys::ggml_tensor) -> bool {
    tensor.type_ == sys::GGML_TYPE_F32 && tensor.ne[2] == 1 && tensor.ne[3] == 1 && tensor.nb[0] == size_of::<f32>()
}

/// How ggml lays out weights of this type, if it is one that is multiplied here.
fn form_of(kind: sys::ggml_type) -> Option<Form> {
    Some(match kind {
        sys::GGML_TYPE_Q4_0 => Form::Q4_0,
        sys::GGML_TYPE_Q4_1 => Form::Q4_1,
        sys::GGML_TYPE_Q5_0 => Form::Q5_0,
        sys::GGML_TYPE_Q5_1 => Form::Q5_1,
        sys::GGML_TYPE_Q8_0 => Form::Q8_0,
        _ => return None,
    })
}

/// Bytes of work space for a node that is computed here; `None` for others. Enough for ggml's way, too.
///
/// # Safety
/// The node and its sources are living tensors.
unsafe extern "C" fn work_bytes(node: *const sys::ggml_tensor) -> usize {
    // SAFETY: handed on from the caller.
    let shape = unsafe { (node.as_ref()).and_then(|node| Shape::of(node)) };
    shape.map_or(0, |shape| shape.n_columns * column_bytes(shape.n))
}

/// The product of weights in blocks and columns of floats.
///
/// # Safety
/// As [`compute`].
unsafe fn multiply(pool: &PoolFunctions, params: &ComputeParams, node: &sys::ggml_tensor) -> bool {
    // SAFETY: handed on from the caller.
    let Some(shape) = (unsafe { Shape::of(node) }) else { return false };
    let Some(product) = Product::detect() else { return false };
    // SAFETY: as above; a node with a shape has both sources.
    let (Some(weights), Some(columns)) = (unsafe { source(node, 0) }, unsafe { source(node, 1) }) else { return false };
    if params.work_bytes < shape.n_columns * column_bytes(shape.n) {
        return false;
    }
    let data = Data { weights: weights.data.cast(), columns: columns.data.cast(), out: node.data.cast() };
    // SAFETY: the sizes are those of the tensors.
    unsafe {
        match shape.n_columns {
            1 => multiply_one(params, product, &shape, &data),
            _ => multiply_many(pool, params, product, &shape, &data),
        }
    }
    true
}

/// Sizes of a product.
struct Shape {
    form: Form,
    /// Weights of a row.
    n: usize,
    n_rows: usize,
    n_columns: usize,
    row_bytes: usize,
    /// Bytes from one column to the next.
    column_stride: usize,
}

impl Shape {
    /// `None` for a product that is left to ggml.
    ///
    /// # Safety
    /// The node's sources are living tensors.
    unsafe fn of(node: &sys::ggml_tensor) -> Option<Self> {
        if node.op != sys::GGML_OP_MUL_MAT {
            return None;
        }
        // SAFETY: handed on from the caller.
        let (weights, columns) = unsafe { (source(node, 0)?, source(node, 1)?) };
        let form = form_of(weights.type_)?;
        let ([n, n_rows, 1, 1], [n_too, n_columns, 1, 1]) = (sizes(weights)?, sizes(columns)?) else { return None };
        let row_bytes = n / BLOCK * form.block_bytes();
        // What has `extra` was laid out anew by ggml; the operation's parameter marks a special matrix.
        let is_plain = weights.extra.is_null() && weights.nb[0] == form.block_bytes() && node.op_params[1] == 0;
        let fits = n == n_too && n.is_multiple_of(STEP) && weights.nb[1] >= row_bytes;
        let is_whole = is_float_matrix(columns) && is_float_matrix(node) && node.nb[1] == n_rows * size_of::<f32>();
        let shape = Self { form, n, n_rows, n_columns, row_bytes: weights.nb[1], column_stride: columns.nb[1] };
        // With many columns ggml is as quick in some forms. It rounds otherwise, though, and an answer shall not depend on
        // how many others there are.
        (is_plain && fits && is_whole).then_some(shape)
    }
}

/// Where its parts are.
struct Data {
    weights: *const u8,
    columns: *const u8,
    /// `[n_columns, n_rows]`.
    out: *mut f32,
}

impl Data {
    /// # Safety
    /// The column exists.
    unsafe fn column(&self, shape: &Shape, idx: usize) -> &[f32] {
        // SAFETY: a column has `n` floats.
        unsafe { std::slice::from_raw_parts(self.columns.add(idx * shape.column_stride).cast(), shape.n) }
    }

    /// Writes the products of rows `from..to` with all columns.
    ///
    /// # Safety
    /// The rows exist, and no other thread writes their products.
    unsafe fn multiply(&self, product: Product, shape: &Shape, (from, to): (usize, usize), columns: &[u8]) {
        let n_bytes = (to - from - 1) * shape.row_bytes + shape.n / BLOCK * shape.form.block_bytes();
        // SAFETY: the last row ends with its last block.
        let bytes = unsafe { std::slice::from_raw_parts(self.weights.add(from * shape.row_bytes), n_bytes) };
        let rows = Rows { form: shape.form, bytes, stride: shape.row_bytes };
        product.multiply(rows, Columns { bytes: columns, n: shape.n }, &mut |row, column, value| {
            // SAFETY: the place of this row and column.
            unsafe { *self.out.add(column * shape.n_rows + from + row) = value };
        });
    }
}

/// One column: each thread rounds it for itself, which is quicker than to wait for each other.
///
/// # Safety
/// As [`multiply`], with the sizes of the tensors.
unsafe fn multiply_one(params: &ComputeParams, product: Product, shape: &Shape, data: &Data) {
    let (thread, n_threads) = (params.thread_idx as usize, params.n_threads as usize);
    let (from, to) = (shape.n_rows * thread / n_threads, shape.n_rows * (thread + 1) / n_threads);
    if from == to {
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.column.resize(column_bytes(shape.n), 0);
        // SAFETY: there is a column, and these rows are this thread's.
        unsafe {
            product.round(data.column(shape, 0), &mut scratch.column);
            data.multiply(product, shape, (from, to), &scratch.column);
        }
    });
}

/// Several columns: the threads round some each, then take rows until none is left.
///
/// # Safety
/// As [`multiply`], with the sizes of the tensors; the work space has room for the columns.
unsafe fn multiply_many(pool: &PoolFunctions, params: &ComputeParams, product: Product, shape: &Shape, data: &Data) {
    let (thread, n_threads) = (params.thread_idx as usize, params.n_threads as usize);
    let column_len = column_bytes(shape.n);
    for idx in (thread..shape.n_columns).step_by(n_threads) {
        // SAFETY: there is room for each column, and no other thread writes this one.
        unsafe {
            let place = std::slice::from_raw_parts_mut(params.work.cast::<u8>().add(idx * column_len), column_len);
            product.round(data.column(shape, idx), place);
        }
    }
    // SAFETY: the pool runs this graph.
    unsafe {
        if thread == 0 {
            (pool.set_chunk)(params.pool, params.n_threads);
        }
        (pool.barrier)(params.pool);
    }
    // SAFETY: all columns are written, and nobody writes them until all threads have returned.
    let columns = unsafe { std::slice::from_raw_parts(params.work.cast::<u8>(), shape.n_columns * column_len) };
    let mut chunk = thread;
    while chunk * CHUNK_ROWS < shape.n_rows {
        let from = chunk * CHUNK_ROWS;
        let rows = (from, (from + CHUNK_ROWS).min(shape.n_rows));
        // SAFETY: each chunk is taken by one thread.
        unsafe {
            data.multiply(product, shape, rows, columns);
            chunk = (pool.add_chunk)(params.pool, 1) as usize;
        }
    }
}
