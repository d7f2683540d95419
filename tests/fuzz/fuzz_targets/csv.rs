#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wildrydes_fuzz::properties::batch::csv(data));
