//! ad hoc
fn main() -> anyhow::Result<()> {
    println!("{}", pbx_tests::kube_build::kubernetes()?.display());
    println!("{}", pbx_tests::tools::helm()?.display());
    println!("{}", pbx_tests::tools::kubectl()?.display());
    Ok(())
}
