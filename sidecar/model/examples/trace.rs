//! tmp
fn main(){ let a:Vec<u64>=std::env::args().skip(1).map(|x|x.parse().unwrap()).collect();
 println!("{:?}", pbx_model::simulation::run_world(a[1] as u8,a[0],true)); }
