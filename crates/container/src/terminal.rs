//! A container on our own terminal, without a monitor: it ends with this process.

use mica_runtime::Created;
use mica_sys::signal::SignalReader;

use crate::client::RawTerminal;
use crate::error::Result;
use crate::launch::{Streams, adopt_terminal};
use crate::pump::{Pump, RESIZED};

/// Our terminal, for one container.
#[derive(Debug)]
pub struct OwnTerminal {
    signals: SignalReader,
}

impl OwnTerminal {
    /// Takes the signals that concern a terminal. Comes before any thread is started: those must not take them.
    pub fn new() -> Result<Self> {
        Ok(Self { signals: SignalReader::new(&[RESIZED, 1, 15])? })
    }

    /// Runs a container that was made with a terminal of its own; ours is a mere wire to it until the end. Answers the exit
    /// code.
    pub fn run(self, mut created: Created) -> Result<i32> {
        let terminal = created.terminal.take();
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        if let Some(terminal) = &terminal {
            adopt_terminal(terminal, size.map(|size| (size.ws_row, size.ws_col)))?;
        }
        let mut pump = Pump {
            streams: Streams { terminal, ..Streams::default() },
            to_own_streams: true,
            from_own_stdin: true,
            signals: Some(self.signals),
            ..Pump::default()
        };
        let mut running = created.start()?;
        let _raw = RawTerminal::new();
        Ok(pump.run(&mut running, &mut None)?.code())
    }
}
