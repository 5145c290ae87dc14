//! Which models exist, how they are configured and fetched.
