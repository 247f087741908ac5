//! What the fuzz targets do with their input, as ordinary functions: the same run in the
//! fuzzer and, over seeds and reproducers, in the tests.

mod forge;
mod manifest;
mod parts;
mod reader;
mod round_trip;
mod salvage;

pub use manifest::manifest;
pub use reader::reader;
pub use round_trip::round_trip;
pub use salvage::salvage;

/// The program of a target: for the fuzzer, or over the files that it is given.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::$name(data));

        #[cfg(not(fuzzing))]
        fn main() {
            for path in std::env::args_os().skip(1) {
                $crate::$name(&std::fs::read(path).expect("a file that can be read"));
            }
        }
    };
}

/// What a target does with one input; a finding is a panic.
pub type Target = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: [(&str, Target); 4] =
    [("reader", reader), ("manifest", manifest), ("salvage", salvage), ("round_trip", round_trip)];

/// The sample archive, sealed without a change by what makes the forgeries, with every codec.
pub fn unforged() -> Vec<Vec<u8>> {
    (0..3).map(|codec| forge::Forgery::nothing(codec).archive()).collect()
}
