//! Limits of every RUN, as the runtime keeps them.

use mica_container::parse_ulimit;
use mica_runtime::spec::{CgroupSpec, ContainerSpec};

use crate::error::StepError;
use crate::request::StepLimits;

/// Sets the limits in a container's spec. `name` is for a cgroup of its own, made only if one is needed.
pub(crate) fn apply(limits: &StepLimits, name: String, spec: &mut ContainerSpec) -> Result<(), StepError> {
    if let Some(bytes) = limits.shm_size_bytes {
        spec.shm_size_bytes = bytes;
    }
    for ulimit in &limits.ulimits {
        let rlimit = parse_ulimit(ulimit).map_err(StepError::Limit)?;
        // The last one of a name counts.
        spec.process.rlimits.retain(|known| known.name != rlimit.name);
        spec.process.rlimits.push(rlimit);
    }
    let cgroup = CgroupSpec {
        name,
        memory_bytes: limits.memory_bytes,
        memory_swap_bytes: limits.memory_swap_bytes,
        cpu_millis: limits.cpu_millis,
        cpu_shares: limits.cpu_shares,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        parent: limits.cgroup_parent.clone(),
        ..CgroupSpec::default()
    };
    let unlimited = CgroupSpec { name: cgroup.name.clone(), ..CgroupSpec::default() };
    spec.cgroup = (cgroup != unlimited).then_some(cgroup);
    Ok(())
}
