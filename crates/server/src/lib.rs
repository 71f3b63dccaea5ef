//! A server process: takes a data folder, starts the roles, serves `sagitta.v1` over gRPC until it is told to stop.
//!
//! Handlers decode, call one function of the coordinator, encode. May not know: how anything is stored or searched.

mod agent;
mod config;
mod connections;
mod data_dir;
pub mod data_plane;
mod deadline;
mod encryption;
mod entrance;
mod failure;
mod filler;
mod gate;
pub mod inspect;
mod net;
mod nodes;
mod own_node;
pub mod peers;
mod recover;
mod renewal;
mod roles;
mod serve;
mod services;
mod start;
mod steward;
pub mod telemetry;
mod upload;

pub use agent::Seen;
pub use config::{ClusterConfig, Config, DEFAULT_LISTEN, DEFAULT_PEER_LISTEN, MIN_COPY_RATE, MIN_SPLIT_ABOVE, PeerTls};
pub use data_dir::DataDirError;
pub use net::{Door, Listener, Net, Network, Stream};
pub use recover::{ControlRecovery, LostCoordinator, RecoverError, recover_control_group};
pub use sagitta_cluster::Roles;
pub use sagitta_node::{BudgetError, ByteSize, MemoryBudget, MemoryShares};
pub use sagitta_shard::Engines;
pub use sagitta_tls::ServerTls;
pub use start::{OpenLog, Platform, Server, StartError, stop_signal};
