//! The few SIMD loops Ingle owns.
