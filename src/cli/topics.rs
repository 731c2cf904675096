//! `sluice topics`: bring a cluster to `topics.yaml` plus the configured destinations.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::args::Global;
use super::exit::{Exit, Failure};
use super::output::Output;
use crate::config::Config;
use crate::control::{self, ControlError, Workspace};
use crate::event::{Topic, TopicNames};
use crate::kafka::Admin;
use crate::topics::{self, Cluster, Plan, PlanOptions, Spec, TopicsError};

/// What to do with the topics.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Show what would be changed on the cluster; changes nothing.
    #[command(after_help = PLAN_HELP)]
    Plan {
        /// How to plan.
        #[command(flatten)]
        planning: Planning,
        /// Exit with 6 when there is something to change or something was refused.
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Show what would be changed, ask, and change it. Never deletes a topic, removes a partition or moves a replica.
    #[command(
        after_help = "Examples:\n  sluice topics apply --config sluice.yaml\n  sluice topics apply --yes -o json\n  sluice topics apply --dry-run   # the brokers check each change, nothing is written\n  sluice topics apply --yes --allow-partition-increase   # drain the roles first"
    )]
    Apply {
        /// How to plan.
        #[command(flatten)]
        planning: Planning,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// Ask the brokers whether they would make each change, and make none.
        #[arg(long)]
        dry_run: bool,
    },
    /// Check what the roles check before they start: topics that are missing or could lose events.
    #[command(
        after_help = "Examples:\n  sluice topics check --config sluice.yaml\n  sluice topics check -o json | jq .problems"
    )]
    Check {
        /// Longest wait for the cluster.
        #[arg(long, default_value_t = 10, value_name = "SECONDS")]
        timeout: u64,
    },
}

/// How to plan.
#[derive(Debug, Args)]
pub struct Planning {
    /// Add partitions to topics whose keys have an order. Keys move to other partitions: drain first.
    #[arg(long)]
    allow_partition_increase: bool,
    /// Longest wait for the cluster.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    timeout: u64,
}

const PLAN_HELP: &str = "\
Marks: + create, ~ change, ! declared but refused (with the fix), . left as it is.

Examples:
  sluice topics plan --config sluice.yaml
  sluice topics plan --bootstrap-server kafka-1:9092 -o json | jq .plan.actions
  sluice topics plan --detailed-exitcode   # 6 when something is to be changed";

/// What every topics command needs.
struct Scene {
    admin: Admin,
    config: Config,
    spec: Spec,
    names: TopicNames,
    wanted: Vec<Topic>,
}

pub(super) fn run(
    global: &Global,
    command: TopicsCommand,
    output: &Output,
) -> Result<Exit, Failure> {
    match command {
        TopicsCommand::Plan {
            planning,
            detailed_exitcode,
        } => {
            let scene = Scene::set(global, planning.timeout, output)?;
            let (plan, _) = scene.plan(&planning)?;
            output.data(&json!({"version": 1, "plan": plan}), || text(&plan))?;
            let different = !plan.is_empty() || plan.refusals().next().is_some();
            Ok(if detailed_exitcode && different {
                Exit::Changes
            } else {
                Exit::Ok
            })
        }
        TopicsCommand::Apply {
            planning,
            yes,
            dry_run,
        } => {
            let scene = Scene::set(global, planning.timeout, output)?;
            apply(&scene, &planning, yes, dry_run, output)
        }
        TopicsCommand::Check { timeout } => check(&Scene::set(global, timeout, output)?, output),
    }
}

impl Scene {
    fn set(global: &Global, timeout: u64, output: &Output) -> Result<Self, Failure> {
        let mut config = global.load()?;
        let timeout = Duration::from_secs(timeout.max(1));
        config.kafka.consumer.lookup_timeout_ms =
            u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        crate::telemetry::init(&global.log_of_a_command());
        let spec = Spec::load(config.topics.file.as_deref())?;
        topics::fit(&spec, &config)?;
        let workspace = workspace(&config, output)?;
        let admin = Admin::open(&config.kafka).map_err(Failure::of)?;
        Ok(Self {
            admin,
            spec,
            names: TopicNames::new(&config.topics.prefix),
            wanted: topics::wanted(&workspace),
            config,
        })
    }

    fn observe(&self) -> Result<Cluster, Failure> {
        topics::observe(&self.admin, &self.names).map_err(Failure::of)
    }

    fn plan(&self, planning: &Planning) -> Result<(Plan, Cluster), Failure> {
        let cluster = self.observe()?;
        let options = PlanOptions {
            mode: self.config.mode,
            allow_partition_increase: planning.allow_partition_increase,
        };
        let plan = topics::plan(&self.spec, &self.names, &self.wanted, &cluster, options);
        Ok((plan, cluster))
    }
}

fn workspace(config: &Config, output: &Output) -> Result<Workspace, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let http = control::client().map_err(Failure::of)?;
    match runtime.block_on(control::load_once(&config.workspace, &http)) {
        Ok(workspace) => Ok(workspace),
        Err(ControlError::Nowhere) => {
            output.say("no workspace is configured: topics of destinations are left out");
            Ok(Workspace::default())
        }
        Err(error) => Err(super::roles::failure(error.into())),
    }
}

fn apply(
    scene: &Scene,
    planning: &Planning,
    yes: bool,
    dry_run: bool,
    output: &Output,
) -> Result<Exit, Failure> {
    let (plan, cluster) = scene.plan(planning)?;
    output.say(&text(&plan));
    if plan.is_empty() {
        return report(&plan, 0, &[], output);
    }
    let question = format!("Make {} change(s)?", plan.actions.len());
    if !dry_run && !output.confirm(&question, yes)? {
        return Err(Failure::say(Exit::Interrupted, "nothing was changed"));
    }
    // While somebody was reading, somebody else may have been at work.
    if scene.observe()? != cluster {
        return Err(Failure::say(
            Exit::Failed,
            "the cluster has changed since the plan was made; nothing was changed, run it again",
        ));
    }
    let mut done = 0;
    let result = topics::apply(&scene.admin, &scene.names, &plan, dry_run, |_| done += 1);
    let failed = result.err().unwrap_or_default();
    output.say(&format!(
        "{done} of {} change(s) {}",
        plan.actions.len(),
        if dry_run { "would be made" } else { "made" }
    ));
    report(&plan, done, &failed, output)
}

fn report(
    plan: &Plan,
    done: usize,
    failed: &[TopicsError],
    output: &Output,
) -> Result<Exit, Failure> {
    let failures: Vec<String> = failed
        .iter()
        .map(|error| match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })
        .collect();
    for failure in &failures {
        output.complain(failure);
    }
    let refused = plan.refusals().count();
    let result =
        json!({"version": 1, "plan": plan, "done": done, "failed": failures, "refused": refused});
    output.data(&result, String::new)?;
    Ok(match (failed.len() + refused, done) {
        (0, _) => Exit::Ok,
        (_, 0) => Exit::Failed,
        (_, _) => Exit::Partial,
    })
}

fn check(scene: &Scene, output: &Output) -> Result<Exit, Failure> {
    let cluster = scene.observe()?;
    let problems = topics::check(
        &scene.spec,
        &scene.names,
        &scene.wanted,
        &cluster,
        scene.config.mode,
    );
    let checked = scene.wanted.len();
    output.data(
        &json!({"version": 1, "ok": problems.is_empty(), "checked": checked, "problems": problems}),
        || {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            if lines.is_empty() {
                format!("{checked} topics are safe to run on")
            } else {
                lines.join("\n")
            }
        },
    )?;
    Ok(if problems.is_empty() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

fn text(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
    lines.extend(plan.notes.iter().map(ToString::to_string));
    lines.push(match (plan.actions.len(), plan.refusals().count()) {
        (0, 0) => "The topics are as declared.".to_owned(),
        (changes, 0) => format!("{changes} change(s)."),
        (changes, refused) => format!("{changes} change(s), {refused} refused."),
    });
    lines.join("\n")
}
