select
    table_name,
    {{ shop_time('covered_from') }} as covered_from_local,
    {{ shop_time('covered_until') }} as covered_until_local
from {{ source('raw', '_coverage') }}
