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
mod exports;
mod hold;
mod lane;
mod list;
mod look;
mod r#move;
mod reclaim;
mod resize;
mod snapshot;
mod tables;
mod tags;
mod vm;
mod vm_snapshots;
mod waiting;
