//! A node proxy as a process of its own, with nothing of the mesh around it but what a test plays: pods, a node agent, a
//! local file instead of a control plane, a development authority. And peers that mean it harm.

pub mod agent;
pub mod duo;
pub mod floods;
pub mod good;
pub mod isolate;
pub mod measure;
pub mod peer;
pub mod pod;
pub mod proxy;
pub mod stage;
pub mod trial;
