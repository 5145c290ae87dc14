//! Which instruction set a loop runs with.

/// Proof that the CPU has an instruction set: the field is private, so a value exists only after the CPU was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The widest set of this CPU. The standard library caches the answer, so this is a load and a test.
    #[inline]
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                return Self(Level::Avx512);
            }
            if is_x86_feature_detected!("avx2") {
                return Self(Level::Avx2);
            }
        }
        Self(Level::Baseline)
    }

    #[inline]
    pub(crate) fn level(self) -> Level {
        self.0
    }

    /// Every set of this CPU, for the tests that compare them.
    #[cfg(test)]
    pub(crate) fn all_available() -> Vec<Self> {
        let mut sets = vec![Self(Level::Baseline)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                sets.push(Self(Level::Avx2));
            }
            if Self::detect().0 == Level::Avx512 {
                sets.push(Self(Level::Avx512));
            }
        }
        sets
    }
}

/// Compiles one `#[inline(always)]` loop for every instruction set and picks one at run time.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident, $on:ident ($($arg:ident: $ty:ty),*) -> $ret:ty = $body:path;) => {
        $(#[$meta])*
        #[inline]
        $vis fn $name($($arg: $ty),*) -> $ret {
            $on($crate::isa::Isa::detect(), $($arg),*)
        }

        pub(crate) fn $on(isa: $crate::isa::Isa, $($arg: $ty),*) -> $ret {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $ty),*) -> $ret {
                $body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $ty),*) -> $ret {
                $body($($arg),*)
            }
            match isa.level() {
                $crate::isa::Level::Baseline => $body($($arg),*),
                // SAFETY: an `Isa` of this level is made only after the CPU reported AVX2.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: an `Isa` of this level is made only after the CPU reported all four AVX-512 sets.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Level::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(crate) use kernel;
