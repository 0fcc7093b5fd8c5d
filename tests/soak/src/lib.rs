//! A long time of ordinary life: connections come and go and stay, pods too, and what the control plane says changes
//! every second. At the end nothing may be left of it, and nothing may have failed.

pub mod change;
pub mod control;
pub mod load;
pub mod plan;
pub mod run;
pub mod summary;
pub mod town;
