//! What is for development, and is left out of a production build: private servers with every service, the demo, the bench,
//! orders from Olist's files, and the simulated payment provider.

pub mod bench;
pub mod demo;
pub mod import;
pub mod olist;
pub mod private;
pub mod process;
pub mod provider;
