//! Wire formats of every HTTP dialect.
