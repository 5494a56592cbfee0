//! tmp
fn main(){ let a:Vec<u64>=std::env::args().skip(1).map(|x|x.parse().unwrap()).collect();
 let s=pbx_model::simulation::run_many(&[a[0] as u8],a[1]..a[1]+a[2],2,|_|{});
 let mut f=s.failed.clone(); f.sort_by_key(|x|x.seed);
 for x in &f { let t=x.to_string(); println!("{}", &t[..t.len().min(220)]); }
 println!("{} worlds {} steps {} promotions worst {:?}", s.worlds,s.steps,s.promotions,s.worst); }
