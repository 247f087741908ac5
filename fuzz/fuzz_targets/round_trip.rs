//! See `backup_kit_fuzz::round_trip`.
#![cfg_attr(fuzzing, no_main)]

backup_kit_fuzz::target!(round_trip);
