//! See `backup_kit_fuzz::reader`.
#![cfg_attr(fuzzing, no_main)]

backup_kit_fuzz::target!(reader);
