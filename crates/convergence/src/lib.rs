//! What the program `convergence` is made of: what is compared ([`variant`]) and by which numbers ([`protocol`]), the texts
//! ([`texts`]), one run ([`worker`]) and what it watches ([`neighbours`]), all runs ([`pool`]), what came of them ([`results`]) and of those elsewhere ([`merge`]), what
//! they cost ([`cost`]), and the report ([`report`], [`statement`], [`tables`], [`figures`]).

pub mod architecture;
pub mod cost;
pub mod figures;
pub mod merge;
pub mod neighbours;
pub mod pool;
pub mod protocol;
pub mod report;
pub mod results;
pub mod seeds;
pub mod statement;
pub mod tables;
pub mod texts;
pub mod variant;
pub mod worker;
