//! See `backup_kit_fuzz::salvage`.
#![cfg_attr(fuzzing, no_main)]

backup_kit_fuzz::target!(salvage);
