//! What the admin API and the proxy ask of single branches: to make, find, wake and suspend one.

use std::io::Write;
use std::sync::Arc;

use argon_admin::types::{self, Until};

use super::cell::{Attach, Cell, Patience, ended};
use super::lease::{BranchHandle, Lease, Use};
use super::parked::Waiter;
use super::state::{Event, State};
use super::{BranchError, Branches, Door, create, news, view};
use crate::archive;
use crate::base::name::Name;
use crate::catalog::Deleted;
use crate::wire::Client;

impl Branches {
    /// Makes a branch.
    ///
    /// # Errors
    /// The project, source or version does not exist, or the name is none or is taken.
    pub async fn create(
        &self,
        project: &str,
        request: types::CreateBranch,
    ) -> Result<types::Branch, BranchError> {
        let cell = create::create(&self.shared, &project.parse()?, request).await?;
        view::branch(&self.shared, &cell)
    }

    /// A project's branches by name, or the deleted ones in the order of their deletion.
    ///
    /// # Errors
    /// There is no such project.
    pub fn list(&self, project: &str, deleted: Deleted) -> Result<Vec<types::Branch>, BranchError> {
        let project: Name = project.parse()?;
        let cells = match deleted {
            Deleted::Without => {
                // Those of other servers are in the next list.
                news::look_soon(&self.shared);
                self.shared.live_branches(&project)?
            }
            Deleted::Only => {
                let row = self.shared.project(&project)?;
                let mut rows = self.shared.catalog.branches(row.id, Deleted::Only)?;
                rows.sort_by_key(|row| row.deleted);
                rows.iter().filter_map(|row| self.cell(row.id)).collect()
            }
        };
        cells.iter().map(|cell| view::branch(&self.shared, cell)).collect()
    }

    /// One branch.
    ///
    /// # Errors
    /// There is none.
    pub fn show(&self, project: &str, branch: &str) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        view::branch(&self.shared, &cell)
    }

    /// How a branch's last wakes went since the server started, the newest first.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn wakes(&self, project: &str, branch: &str) -> Result<Vec<types::WakeTrace>, BranchError> {
        let reports = self.live(project, branch)?.wakes();
        Ok(reports.iter().rev().map(|report| report.trace()).collect())
    }

    /// Suspends a branch; one that sleeps already stays as it is. Returns when it has got as far
    /// as `until` says.
    ///
    /// # Errors
    /// There is no such branch, or its writes could not be stored; then they are kept.
    pub async fn suspend(
        &self,
        project: &str,
        branch: &str,
        until: Until,
    ) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        match until {
            Until::Asleep => cell.settle(&self.shared, Event::Suspend).await?,
            Until::Saved => cell.settle_saved(&self.shared).await?,
        }
        view::branch(&self.shared, &cell)
    }

    /// Wakes a branch, at once even after a wake that failed just now.
    ///
    /// # Errors
    /// There is no such branch, or it cannot be woken.
    pub async fn resume(&self, project: &str, branch: &str) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        self.wake(&cell).await?;
        view::branch(&self.shared, &cell)
    }

    async fn wake(&self, cell: &Arc<Cell>) -> Result<Lease, BranchError> {
        let mut waiter = Waiter::new(0);
        loop {
            match cell.attach(&self.shared, Use::Work, Patience::TryNow, &mut waiter)? {
                Attach::Lease(lease) => {
                    drop(waiter);
                    // Where commands wait too, the first of them completes the report.
                    if cell.parked() == 0 {
                        lease.tell_wake();
                    }
                    return Ok(lease);
                }
                Attach::Wait(outcome) => match ended(outcome).await {
                    Ok(()) | Err(BranchError::Save { .. } | BranchError::Lost { .. }) => {}
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Wakes a branch and writes a gzip'ed mongodump archive of it.
    ///
    /// # Errors
    /// There is no such branch, it cannot be woken, or writing failed half way.
    pub async fn dump(
        &self,
        project: &str,
        branch: &str,
        into: impl Write + Send + 'static,
    ) -> Result<(), BranchError> {
        let cell = self.live(project, branch)?;
        let lease = self.wake(&cell).await?;
        let mut client = Client::connect(lease.socket()).await?;
        archive::dump(&mut client, into, archive::Compression::Gzip).await.map_err(|source| {
            BranchError::Dump { branch: cell.name.clone(), source: Arc::new(source) }
        })?;
        Ok(())
    }

    /// Which branch an address names; the default project where it names none. Wakes nothing.
    ///
    /// # Errors
    /// There is no such project or branch.
    pub fn route(
        &self,
        project: Option<&Name>,
        branch: &Name,
    ) -> Result<BranchHandle, BranchError> {
        let project = match project {
            Some(project) => project.clone(),
            None => self.default_project()?,
        };
        let found = self.shared.live(&project, branch);
        let cell = found.inspect_err(|_| news::look_soon(&self.shared))?;
        Ok(BranchHandle::new(self.shared.clone(), cell))
    }

    /// The branch that a door belongs to. Wakes nothing.
    ///
    /// # Errors
    /// It was deleted.
    pub fn route_door(&self, door: &Door) -> Result<BranchHandle, BranchError> {
        let cell = self.cell(door.branch).filter(|cell| cell.state() != State::Deleted);
        let deleted = || BranchError::Deleted { branch: door.name.clone() };
        Ok(BranchHandle::new(self.shared.clone(), cell.ok_or_else(deleted)?))
    }
}
