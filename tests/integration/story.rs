//! The main job, one chapter a verb: what an operator types, what comes of it, and what CloudStack then has.

mod attach;
mod attach_root;
mod create;
mod delete;
mod detach;
mod documents;
mod doubt;
mod dry_run;
mod export;
mod hold;
mod lane;
mod look;
mod r#move;
mod resize;
mod snapshot;
mod waiting;
