//! What a loaded model is: traits, scheduler, prefix cache, sampling.
