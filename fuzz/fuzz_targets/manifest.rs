//! See `backup_kit_fuzz::manifest`.
#![cfg_attr(fuzzing, no_main)]

backup_kit_fuzz::target!(manifest);
