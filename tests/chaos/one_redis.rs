//! The one Redis of a run where there are not several, with its disk: what breaks it and what mends it.

use rustix::process::Signal;
use tokio::task::block_in_place;

use crate::plan::{Act, Topology};
use crate::support::disk::{Disk, Stall};
use crate::support::redis::RedisServer;

/// What has been done to the server, which the fleet has.
pub struct OneRedis {
    is_up: bool,
    /// Where its machine loses its power.
    disk: Option<Disk>,
    stall: Option<Stall>,
}

impl OneRedis {
    pub fn start(topology: Topology) -> (RedisServer, Self) {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let disk = (topology == Topology::Disk).then(Disk::new);
        let server = match &disk {
            // Whatever Redis has answered is on the disk.
            None => RedisServer::start_with(|| words(&["--appendfsync", "always"])),
            // It is not; and now and then the file is made anew.
            Some(disk) => RedisServer::start_newer_on(disk, || {
                words(&["--appendfsync", "everysec", "--auto-aof-rewrite-min-size", "500kb"])
            }),
        };
        (server, Self { is_up: true, disk, stall: None })
    }

    /// Breaks or mends the server.
    pub fn act(&mut self, redis: &mut RedisServer, act: Act) {
        match act {
            Act::RedisDown(_) => {
                redis.kill();
                self.is_up = false;
            }
            Act::PowerLoss => {
                if let Some(disk) = &self.disk {
                    let lost = block_in_place(|| disk.lose_power(redis));
                    println!("chaos: power is lost, and with it {lost} bytes");
                    self.is_up = false;
                }
            }
            Act::RedisUp => {
                // A server that starts waits for its disk.
                self.stall = None;
                if !self.is_up {
                    block_in_place(|| redis.restart());
                    self.is_up = true;
                }
            }
            Act::RedisHangs(_) | Act::RedisGoesOn if !self.is_up => {}
            Act::RedisHangs(_) => redis.signal(Signal::STOP),
            Act::RedisGoesOn => redis.signal(Signal::CONT),
            Act::DiskStalls => {
                if self.stall.is_none() {
                    self.stall = self.disk.as_ref().map(Disk::stall);
                }
            }
            Act::DiskGoesOn => self.stall = None,
            _ => panic!("{act:?} is not about the one server"),
        }
    }
}
