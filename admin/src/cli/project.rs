//! `argon project …`

use clap::Subcommand;

use super::error::CliError;
use super::human;
use super::output::{Answer, table};
use super::retention::RetentionCommand;
use super::session::{Session, took};
use crate::types::{CreateProject, OperationResult, SetImage};

#[derive(Subcommand, Clone, Debug)]
pub enum ProjectCommand {
    /// Create a project; its branches start from the present base
    Create {
        /// 1 to 63 of a-z, 0-9 and `-`
        name: String,
        /// The image that its branches' mongods come from, as in mongo:8.0; else the server's
        #[arg(long)]
        image: Option<String>,
    },
    /// List the projects
    List,
    /// Set which image its new branches begin with; those that are there go on with theirs
    Image {
        /// The project
        name: String,
        /// The image, as in mongo:8.0, or `default` for the server's
        image: String,
    },
    /// Show or set which versions and deleted branches a project keeps
    Retention(RetentionCommand),
    /// Delete a project that has no branches any more
    Delete {
        /// The project
        name: String,
    },
}

impl ProjectCommand {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        match self {
            Self::Create { name, image } => create(session, name, image.as_deref()),
            Self::Image { name, image } => set_image(session, name, image),
            Self::List => list(session),
            Self::Retention(retention) => retention.execute(session),
            Self::Delete { name } => {
                let done = session.follow(session.client.delete_project(name)?)?;
                Ok(Answer::new(&done, format!("deleted project {name}")))
            }
        }
    }
}

fn create(session: &Session, name: &str, image: Option<&str>) -> Result<Answer, CliError> {
    let request = CreateProject { name: name.to_owned(), image: image.map(str::to_owned) };
    let done = session.follow(session.client.create_project(&request)?)?;
    match &done.result {
        Some(OperationResult::Project(project)) => {
            let text = format!("created project {}{}", project.name, took(&done));
            Ok(Answer::new(project, text))
        }
        _ => Err(session.no_result(&done).into()),
    }
}

fn set_image(session: &Session, name: &str, image: &str) -> Result<Answer, CliError> {
    let image = (image != "default").then(|| image.to_owned());
    let done = session.follow(session.client.set_image(name, &SetImage { image })?)?;
    match &done.result {
        Some(OperationResult::Project(project)) => {
            let of = project.image.as_deref().unwrap_or("the server's image");
            let text = format!("new branches of {} begin with {of}{}", project.name, took(&done));
            Ok(Answer::new(project, text))
        }
        _ => Err(session.no_result(&done).into()),
    }
}

fn list(session: &Session) -> Result<Answer, CliError> {
    let projects = session.client.projects()?;
    let rows = projects.iter().map(|project| {
        [
            project.name.clone(),
            human::ago(&project.created_at),
            project.base_version.clone().unwrap_or_else(|| "-".to_owned()),
            project.image.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    Ok(Answer::new(&projects, table(["NAME", "CREATED", "BASE", "IMAGE"], rows.collect())))
}
